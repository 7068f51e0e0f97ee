#include "runner/train/run.h"

#include <chrono>
#include <memory>

#include <CLI/CLI.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "runner/worker/data_options.h"
#include "runner/worker/ranks.h"
#include "runner/worker/spec_file.h"
#include "runner/worker/torch_switches.h"
#include "runner/worker/verb.h"

namespace ablate::worker::run {
namespace {

namespace fs = std::filesystem;

struct RunOptions {
  std::string spec;
  std::vector<std::string> data;
  std::vector<std::string> overrides;
  Environment environment{.attempt = 0, .fence = 0};
};

/// A run started by hand: the next free attempt, which fences off all earlier ones.
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

StopOptions stop_options(const RunSpec& spec, const Environment& environment) {
  StopOptions options;
  options.stop_file = environment.stop_file.empty()
                          ? RunPaths(environment.out, spec.id()).stop_file()
                          : environment.stop_file;
  if (environment.deadline_seconds > 0) {
    options.deadline =
        std::chrono::system_clock::now() +
        std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * environment.deadline_seconds));
  }
  return options;
}

int run_rank(RunOptions options, Communicator& world) {
  Environment& environment = options.environment;
  environment.data = parse_data_roots(options.data);
  environment.out = fs::absolute(environment.out);
  const RunSpec spec = load_spec(options.spec, options.overrides, environment, world.size());
  claim_attempt(spec, environment, world);
  set_torch_switches(environment.threads);
  const StopHandlers handlers;
  StopSignal stop(stop_options(spec, environment));
  return execute_run(spec, environment, world, stop).exit_code;
}

void add_options(CLI::App& app, RunOptions& options) {
  Environment& env = options.environment;
  app.add_option("spec", options.spec, "Resolved spec (.json) or run file (.toml)")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("overrides", options.overrides, "key=value, for a run file");
  app.add_option("--out", env.out, "Output folder")->capture_default_str();
  add_data_option(app, options.data);
  app.add_option("--init", env.init_file, "Start weights that the spec names by content");
  app.add_option("--attempt", env.attempt, "Number of this attempt (default: the next free one)");
  app.add_option("--fence", env.fence, "Fencing number (default: raise the run's)");
  app.add_option("--threads", env.threads, "Threads of a rank's tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--loader-threads", env.loader_threads, "Decoding threads of a rank")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--micro-batch", env.micro_batch,
                 "Images of one forward pass on a rank; 0: its whole share of the batch")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--device", env.device, "cpu")
      ->check(CLI::IsMember({"cpu"}))
      ->capture_default_str();
  app.add_option("--checkpoint-every", env.checkpoint_seconds, "Seconds between resume checkpoints")
      ->capture_default_str();
  app.add_option("--checkpoint-steps", env.checkpoint_steps,
                 "Additionally every so many steps; 0: by time alone");
  app.add_option("--keep-checkpoints", env.keep_checkpoints, "Resume checkpoints kept")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--stop-file", env.stop_file, "Its existence stops the run (default: RUN/stop)");
  app.add_option("--deadline", env.deadline_seconds, "Seconds from now after which the run stops");
}

const Registry<Verb>::Add added{{
    .name = "run",
    .summary = "One rank of one run; alone, under mpirun or under srun",
    .examples = "  ablate-train run run.toml --out out seed=3 optimizer.lr=5e-4\n"
                "  mpirun -n 2 ablate-train run out/runs/<id>/spec.json --out out\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto options = std::make_shared<RunOptions>();
      add_options(app, *options);
      return [options] {
        return run_as_rank([&](Communicator& world) { return run_rank(*options, world); });
      };
    },
}};

}  // namespace
}  // namespace ablate::worker::run
