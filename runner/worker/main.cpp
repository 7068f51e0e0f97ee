#include "runner/worker/verb.h"

int main(int argc, char** argv) { return ablate::run_verb_line(argc, argv); }
