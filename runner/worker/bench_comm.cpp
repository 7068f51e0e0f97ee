#include <iomanip>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/measure/throughput.h"
#include "runner/torch/torch.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_part.h"
#include "runner/worker/ranks.h"

namespace ablate {
namespace worker::bench_comm {
namespace {

using nlohmann::json;

struct CommBenchOptions {
  std::int64_t max_mib = 64;
  double seconds = 1;
  std::string device = "cpu";
  bool nvls = false;
};

/// What is measured: the world itself, or NCCL over it.
struct CommBenchSubject {
  Communicator& communicator;
  at::Device device;

  /// Reductions that are waited for together: on a device the host's share must not show.
  std::int64_t repetitions() const { return device.is_cuda() ? 20 : 1; }
  void reduce(at::Tensor& tensor) const {
    for (std::int64_t i = 0; i < repetitions(); ++i) communicator.all_reduce(tensor);
    if constexpr (ABLATE_HAS_CUDA) {
      if (device.is_cuda()) wait_for_device();
    }
  }
};

/// Median seconds of an all-reduce of so many bytes, of the slowest rank. Every rank does the same
/// number of rounds: rank 0's clock decides, before and not between them.
double all_reduce_seconds(const CommBenchSubject& subject, std::int64_t bytes, double budget) {
  constexpr std::int64_t kMost = 2000;
  Communicator& world = subject.communicator;
  at::Tensor tensor = at::zeros({bytes / 4}, at::TensorOptions(subject.device).dtype(at::kFloat));
  const std::vector<std::function<void()>> run{[&] { subject.reduce(tensor); }};
  world.barrier();
  const double trial = time_in_turns(run, {.warm_up = 1, .min_rounds = 1, .max_rounds = 1})[0][0];
  const auto wanted = static_cast<std::int64_t>(budget / std::max(trial, 1e-6));
  const std::int64_t rounds =
      world.all_reduce(std::clamp<std::int64_t>(wanted, 3, kMost), ReduceOp::Min);
  world.barrier();
  const auto seconds = time_in_turns(run, {.min_rounds = rounds, .max_rounds = rounds})[0];
  return world.all_reduce(Spread::of(seconds).median, ReduceOp::Max) /
         static_cast<double>(subject.repetitions());
}

/// algbw = bytes / time; busbw = algbw 2 (n - 1) / n, what each link carries (nccl-tests,
/// PERFORMANCE.md).
json measure(const CommBenchSubject& subject, std::int64_t bytes, double budget) {
  const double seconds = all_reduce_seconds(subject, bytes, budget);
  const double algbw = static_cast<double>(bytes) / seconds / 1e9;
  const double busbw =
      algbw * 2.0 * (subject.communicator.size() - 1) / subject.communicator.size();
  return {{"bytes", bytes},
          {"us", 1e6 * seconds},
          {"algbw_gb_per_s", algbw},
          {"busbw_gb_per_s", busbw}};
}

void print_row(const json& row) {
  std::cerr << std::fixed << std::setw(12) << row.at("bytes").get<std::int64_t>()
            << std::setprecision(1) << std::setw(12) << row.at("us").get<double>()
            << std::setprecision(3) << std::setw(14) << row.at("algbw_gb_per_s").get<double>()
            << std::setw(14) << row.at("busbw_gb_per_s").get<double>() << "\n";
}

int bench_sizes(const CommBenchOptions& options, const CommBenchSubject& subject) {
  const Communicator& world = subject.communicator;
  const bool main_rank = world.rank() == 0;
  if (main_rank) {
    std::cerr << "all-reduce of float32, " << world.size() << " ranks, " << world.backend() << "\n"
              << "       bytes          us  algbw GB/s    busbw GB/s\n";
  }
  json rows = json::array();
  for (std::int64_t bytes = 1 << 10; bytes <= options.max_mib << 20; bytes *= 4) {
    rows.push_back(measure(subject, bytes, options.seconds));
    if (main_rank) print_row(rows.back());
  }
  if (main_rank) {
    std::cout << json{{"backend", world.backend()}, {"ranks", world.size()}, {"sizes", rows}}.dump(
                     1)
              << std::endl;
  }
  return static_cast<int>(ExitCode::Done);
}

int bench_rank(const CommBenchOptions& options, Communicator& world) {
  if (options.device == "cpu") return bench_sizes(options, {world, at::kCPU});
  if constexpr (ABLATE_HAS_CUDA) {
    const int device = local_rank(world);
    choose_device(device);
    const auto nccl = make_nccl_communicator(world, device, {.nvls = options.nvls});
    return bench_sizes(options,
                       {*nccl, at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device))});
  }
  throw SpecError("--device cuda: this program was built without CUDA");
}

}  // namespace
}  // namespace worker::bench_comm

BenchPart add_bench_comm(CLI::App& bench) {
  auto options = std::make_shared<worker::bench_comm::CommBenchOptions>();
  CLI::App* app = bench.add_subcommand("comm", "All-reduce over message sizes, under mpirun");
  app->add_option("--max-mib", options->max_mib, "Largest message")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--device", options->device, "cpu: the ranks' own transport; cuda: NCCL")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app->add_flag("--nvls", options->nvls, "Let NCCL reduce in NVLink switches");
  app->add_option("--seconds", options->seconds, "Time for each size")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  return {app, [options] {
            return run_as_rank([&](Communicator& world) {
              return worker::bench_comm::bench_rank(*options, world);
            });
          }};
}

}  // namespace ablate
