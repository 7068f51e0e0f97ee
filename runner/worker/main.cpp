#include <malloc.h>

#include "runner/worker/verb.h"

int main(int argc, char** argv) {
  // Activations of a step are freed and asked for again in the next one. By default glibc gives
  // such blocks back to the kernel, and every step pays for their page faults anew.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  mallopt(M_TOP_PAD, 64 << 20);
  return ablate::run_verb_line(argc, argv);
}
