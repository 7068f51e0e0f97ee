#include "runner/train/run.h"

#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/run_paths.h"
#include "runner/worker/data_options.h"
#include "runner/worker/loader_threads.h"
#include "runner/worker/ranks.h"
#include "runner/worker/run_list.h"
#include "runner/worker/run_pack.h"
#include "runner/worker/run_start.h"
#include "runner/worker/torch_switches.h"
#include "runner/worker/verb.h"

namespace ablate::worker::run {
namespace {

namespace fs = std::filesystem;

struct RunOptions {
  std::vector<std::string> words;  // specs and overrides
  std::vector<std::string> data, init_files;
  std::vector<int> attempts;
  std::vector<std::int64_t> fences;
  std::string drill;
  std::size_t at_a_time = 0;
  bool all = false;
  Environment environment{.attempt = 0, .fence = 0, .loader_threads = -1};
};

int run_alone(PackedRun run, const RunOptions& options, Communicator& world) {
  Environment& environment = run.environment;
  claim_attempt(run.spec, environment, world);
  StopOptions stopping =
      stop_options(options.environment.stop_file, options.environment.deadline_seconds);
  if (stopping.stop_file.empty()) {
    stopping.stop_file = RunPaths(environment.out, run.spec.id()).stop_file();
  }
  StopSignal stop(stopping);
  return execute_run(run.spec, environment, world, stop).exit_code;
}

int run_several(std::vector<PackedRun> runs, const RunOptions& options, Communicator& world) {
  if (world.size() != 1) {
    throw SpecError(cat("several runs share a process only on one rank each, not on ", world.size(),
                        "; start one run under mpirun, or several without it"));
  }
  if (!options.environment.profile.empty()) {
    throw SpecError("--profile records one run: a trace of several could not tell them apart");
  }
  return run_pack(std::move(runs), {.at_a_time = options.at_a_time,
                                    .shared = options.all,
                                    .stop = stop_options(options.environment.stop_file,
                                                         options.environment.deadline_seconds)});
}

/// Only in a folder that a drill made: nobody's runs meet a fault by mistake.
DrillFault planned_fault(const fs::path& file, const fs::path& out) {
  if (!fs::exists(file) || !fs::exists(drill_file(out)) || !fs::equivalent(file, drill_file(out))) {
    throw SpecError(cat("--drill ", file.string(), ": accepted is only ", drill_file(out).string(),
                        ", as `ablate drill` leaves it in the output folders of its own runs"));
  }
  return read_drill_fault(file);
}

/// Loader threads that nobody has given a number of: a device should not wait for images, while the
/// CPU is busy with the steps themselves.
int default_loader_threads(const RunOptions& options, std::size_t runs, Communicator& world) {
  const bool device = at::hasCUDA() && options.environment.device != "cpu";
  const bool on_all = world.all_reduce(std::int64_t{device ? 1 : 0}, ReduceOp::Min) > 0;
  const std::size_t at_once = options.at_a_time == 0 ? runs : std::min(runs, options.at_a_time);
  return on_all ? spare_loader_threads(world, static_cast<int>(at_once)) : 1;
}

int run_rank(RunOptions options, Communicator& world) {
  Environment& environment = options.environment;
  environment.data = parse_data_roots(options.data);
  environment.out = fs::absolute(environment.out);
  if (!options.drill.empty()) {
    environment.fault = planned_fault(options.drill, environment.out);
  }
  const RunNames names{.words = options.words,
                       .all = options.all,
                       .attempts = options.attempts,
                       .fences = options.fences,
                       .init_files = options.init_files};
  std::vector<PackedRun> runs = list_runs(names, environment, world.size());
  if (environment.loader_threads < 0) {
    const int threads =
        default_loader_threads(options, std::max<std::size_t>(1, runs.size()), world);
    for (PackedRun& run : runs) run.environment.loader_threads = threads;
  }
  set_torch_switches(environment.threads);
  const StopHandlers handlers;
  if (runs.size() == 1 && !options.all) return run_alone(std::move(runs[0]), options, world);
  return run_several(std::move(runs), options, world);
}

void add_options(CLI::App& app, RunOptions& options) {
  Environment& env = options.environment;
  app.add_option("spec", options.words,
                 "Resolved specs (.json) or run files (.toml), and KEY=VALUE for the run files")
      ->type_name("FILE...");
  app.add_flag("--all", options.all, "Every run below OUT/runs that is not done, parents first");
  app.add_option("--at-a-time", options.at_a_time,
                 "Of several runs so many share the process at once; 0: all of them");
  app.add_option("--out", env.out, "Output folder")->capture_default_str();
  add_data_option(app, options.data);
  app.add_option("--init", options.init_files,
                 "Weights that a spec names by content, to start or to learn from")
      ->allow_extra_args(false);
  app.add_option("--attempt", options.attempts,
                 "Number of this attempt, once a spec (default: the next free one)")
      ->allow_extra_args(false);
  app.add_option("--fence", options.fences,
                 "Fencing number, once a spec (default: raise the run's)")
      ->allow_extra_args(false);
  app.add_option("--threads", env.threads, "Threads of a rank's tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--loader-threads", env.loader_threads,
                 "Decoding threads of a rank (default: 1; for a CUDA device as many as the rank's "
                 "processors allow)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--micro-batch", env.micro_batch,
                 "Images of one forward pass on a rank; 0: its whole share of the batch")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--device", env.device,
                 "cpu, cuda, or auto: a CUDA device when there is one that the run can use")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_flag("--nccl-nvls", env.nccl_nvls, "Let NCCL reduce in NVLink switches");
  app.add_option("--nccl-timeout", env.nccl_timeout,
                 "Seconds after which a step on several devices counts as hanging")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--checkpoint-every", env.checkpoint_seconds, "Seconds between resume checkpoints")
      ->capture_default_str();
  app.add_option("--checkpoint-steps", env.checkpoint_steps,
                 "Additionally every so many steps; 0: by time alone");
  app.add_option("--keep-checkpoints", env.keep_checkpoints, "Resume checkpoints kept")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--profile", env.profile,
                 "Record steps 10 to 15 on the first rank: Chrome trace to this file, device time "
                 "by class of kernel to the log and the spool")
      ->type_name("FILE");
  app.add_option("--stop-file", env.stop_file, "Its existence stops the run (default: RUN/stop)");
  app.add_option("--deadline", env.deadline_seconds, "Seconds from now after which the run stops");
  app.add_option("--drill", options.drill,
                 "A fault that `ablate drill` planned for one of its own runs: OUT/drill.json")
      ->type_name("FILE");
}

const Registry<Verb>::Add added{{
    .name = "run",
    .summary = "One rank of one run; alone, under mpirun or under srun. Or several runs at once",
    .examples = "  ablate-train run run.toml --out out seed=3 optimizer.lr=5e-4\n"
                "  mpirun -n 2 ablate-train run out/runs/<id>/spec.json --out out\n"
                "  ablate-train run a.json b.json c.json     three runs share one process and GPU\n"
                "  ablate-train run --all --out out --at-a-time 4\n",
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
