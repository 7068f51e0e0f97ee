#include <iostream>

#include <CLI/CLI.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/process.h"
#include "runner/worker/ranks.h"
#include "runner/worker/verb.h"

namespace ablate::worker::hello {
namespace {

int say(Communicator& world) {
  // Every rank has met the others before the first one speaks.
  const auto there = world.all_reduce(std::int64_t{1}, ReduceOp::Sum);
  std::cout << cat("rank ", world.rank(), " of ", there, " on ", host_name(), "\n") << std::flush;
  return static_cast<int>(ExitCode::Done);
}

const Registry<Verb>::Add added{{
    .name = "hello",
    .summary = "Every rank says its number: does this launcher make one world of them?",
    .examples = "  srun --mpi=pmix -n 4 ablate-train hello\n"
                "  mpirun -n 4 ablate-train hello\n",
    .add = [](CLI::App&) -> std::function<int()> { return [] { return run_as_rank(say); }; },
}};

}  // namespace
}  // namespace ablate::worker::hello
