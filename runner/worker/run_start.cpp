#include "runner/worker/run_start.h"

#include <chrono>

#include "distributed/communicator.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"

namespace ablate {

namespace fs = std::filesystem;

void claim_attempt(const RunSpec& spec, Environment& environment, Communicator& world) {
  const RunPaths paths(environment.out, spec.id());
  if (environment.attempt == 0) {
    std::int64_t attempt = 1;
    if (world.rank() == 0) {
      while (fs::exists(paths.attempt(static_cast<int>(attempt)))) ++attempt;
    }
    environment.attempt = static_cast<int>(world.all_reduce(attempt, ReduceOp::Max));
  }
  if (environment.fence == 0) {
    std::int64_t fence = 0;
    if (world.rank() == 0) {
      if (fs::exists(paths.fence())) fence = std::stoll(read_file(paths.fence()));
      make_directories(paths.directory);
      write_file_atomic(paths.fence(), std::to_string(++fence));
    }
    environment.fence = world.all_reduce(fence, ReduceOp::Max);
  }
  if (world.rank() == 0 && !fs::exists(paths.spec())) {
    make_directories(paths.directory);
    write_file_atomic(paths.spec(), spec.canonical());
  }
}

StopOptions stop_options(const fs::path& stop_file, double deadline_seconds) {
  StopOptions options;
  options.stop_file = stop_file;
  if (deadline_seconds > 0) {
    options.deadline = std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * deadline_seconds));
  }
  return options;
}

}  // namespace ablate
