#include "runner/cli/command.h"
#include "runner/core/log.h"

int main(int argc, char** argv) {
  ablate::configure_log(ablate::LogLevel::Info, "ablate");
  return ablate::run_command_line(argc, argv);
}
