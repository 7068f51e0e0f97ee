#include "sweeps/launch.h"

#include <string_view>

#include "runner/core/error.h"

namespace ablate {
namespace {

Launch read_launch(Params& params) {
  Launch launch;
  const auto integer = [&](std::string_view key, int fallback, int low, int high,
                           std::string_view help) {
    return static_cast<int>(params.integer(key, fallback, low, high, help));
  };
  launch.executor = params.choice("executor", launch.executor, {"mpirun", "slurm"},
                                  "who starts the runs: this machine, or Slurm in one job array");
  launch.ranks = integer("ranks", launch.ranks, 1, 65'536, "ranks of a run");
  launch.threads = integer("threads", launch.threads, 1, 4096, "threads of a rank");
  launch.jobs = integer("jobs", launch.jobs, 1, 4096,
                        "concurrent jobs, on disjoint cores; on GPUs it is one a GPU; under Slurm "
                        "the most elements of the array at a time");
  launch.retries = integer("retries", launch.retries, 0, 1000,
                           "further attempts after a failure of the machine");
  launch.retries_failed = integer("retries_failed", launch.retries_failed, 0, 1000,
                                  "further attempts after a failure of the run itself");
  launch.micro_batch = integer("micro_batch", launch.micro_batch, 0, 1'000'000,
                               "images a rank takes at once; 0: its whole slice");
  launch.loader_threads =
      integer("loader_threads", launch.loader_threads, -1, 1024,
              "loader threads of a rank; -1: one, for a CUDA device as many as its cores allow");
  launch.device = params.choice("device", launch.device, {"auto", "cpu", "cuda"}, "where to train");
  launch.nccl_nvls = params.boolean(
      "nccl_nvls", launch.nccl_nvls,
      "let NCCL reduce in NVLink switches: faster on eight GPUs, not bitwise repeatable");
  launch.nccl_timeout = params.number("nccl_timeout", launch.nccl_timeout, 1, 1e6,
                                      "seconds after which a step on several GPUs hangs");
  launch.checkpoint_every = params.number("checkpoint_every", launch.checkpoint_every, 0, 1e9,
                                          "seconds between resume checkpoints");
  launch.checkpoint_steps = integer("checkpoint_steps", launch.checkpoint_steps, 0, 1'000'000'000,
                                    "steps between resume checkpoints; 0: by time alone");
  launch.keep_checkpoints =
      integer("keep_checkpoints", launch.keep_checkpoints, 1, 1000, "resume checkpoints kept");
  launch.stall_timeout = params.number("stall_timeout", launch.stall_timeout, 1, 1e9,
                                       "seconds without a record before a run counts as hung");
  launch.bench_batch = integer("bench_batch", launch.bench_batch, 1, 1'000'000,
                               "images of a repetition in bench jobs");
  launch.bench_seconds =
      params.number("bench_seconds", launch.bench_seconds, 0, 1e6, "timed part of a bench job");
  launch.bench_memory_mib = integer("bench_memory_mib", launch.bench_memory_mib, 1, 100'000'000,
                                    "memory budget of the column max_batch");
  const auto packed = params.integer_or(
      "runs_per_gpu", "auto", 1, 1, 64,
      "runs that share one GPU and one process; \"auto\": as many as pay, at most 8");
  launch.runs_per_gpu = packed ? std::optional(static_cast<int>(*packed)) : std::nullopt;
  if (launch.runs_per_gpu != 1 && launch.ranks != 1) {
    params.fail("runs_per_gpu", cat("runs of ", launch.ranks,
                                    " ranks cannot share a process; accepted: 1, or ranks = 1"));
  }
  if (const Value* slurm = params.raw("slurm", "what a run asks of Slurm")) {
    launch.slurm = parse_slurm(*slurm);
  }
  return launch;
}

}  // namespace

Launch parse_launch(const Value& table) {
  Params params(table, "launch");
  const Launch launch = read_launch(params);
  params.finish();
  return launch;
}

std::vector<ParamHelp> launch_settings() {
  const Value nothing;
  Params params(nothing, "launch");
  read_launch(params);
  std::vector<ParamHelp> help = params.help();
  for (ParamHelp& setting : slurm_settings()) {
    setting.key = "slurm." + setting.key;
    help.push_back(std::move(setting));
  }
  return help;
}

}  // namespace ablate
