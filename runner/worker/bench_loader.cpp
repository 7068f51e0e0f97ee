#include <iostream>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/measure/throughput.h"
#include "runner/train/run_data.h"
#include "runner/worker/bench_device_loader.h"
#include "runner/worker/bench_part.h"
#include "runner/worker/data_options.h"
#include "runner/worker/ranks.h"
#include "runner/worker/spec_file.h"

namespace ablate {
namespace worker::bench_loader {
namespace {

struct LoaderBenchOptions {
  std::filesystem::path spec;
  std::vector<std::string> data, overrides;
  std::string device = "cpu", part = "whole";
  double seconds = 10;
  Environment environment;
};

/// What a rank found.
struct LoaderRate {
  double images_per_s = 0;
  std::string made;       ///< where batches were made, and why there
  StageSeconds stages{};  ///< of loader threads, for what was measured on the host
};

/// Makes batches for so many seconds and throws them away.
template <typename Loader>
LoaderRate loader_rate(Loader& loader, double seconds, std::string made) {
  constexpr int kWarmUp = 2;
  loader.seek(0, 0);
  for (int i = 0; i < kWarmUp; ++i) loader.next();
  loader.take_stage_seconds();
  std::int64_t images = 0;
  const double start = steady_seconds();
  double elapsed = 0;
  while (elapsed < seconds) {
    images += std::ssize(loader.next().indices);
    elapsed = steady_seconds() - start;
  }
  return {static_cast<double>(images) / elapsed, std::move(made), loader.take_stage_seconds()};
}

LoaderRate host_rate(const RunData& data, const LoaderBenchOptions& options) {
  if (options.part == "whole") {
    return loader_rate(*data.train_loader(), options.seconds, "host");
  }
  const std::string reason = data.why_not_cropped();
  if (!reason.empty()) throw SpecError(cat("--part crops: ", reason));
  return loader_rate(*data.crop_loader(/*pinned=*/false), options.seconds, "host, crops alone");
}

nlohmann::json shares(const StageSeconds& stages) {
  nlohmann::json result = nlohmann::json::object();
  const double sum = stages.sum();
  for (std::size_t i = 0; i < stages.of.size() && sum > 0; ++i) {
    result[std::string(kLoadStageNames[i])] = stages.of[i] / sum;
  }
  return result;
}

/// This rank's batches, and where they are made.
LoaderRate rank_rate(const RunData& data, const LoaderBenchOptions& options, Communicator& world) {
  if (options.device == "cpu") {
    world.barrier();
    return host_rate(data, options);
  }
#if ABLATE_HAS_CUDA
  const int devices = c10::cuda::device_count();
  if (devices == 0) throw SpecError("--device cuda: there is no CUDA device");
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(world.rank() % devices));
  const DeviceLoaderRate rate = device_loader_rate(data, device, options.seconds);
  return {rate.images_per_s, rate.made, {}};
#else
  throw SpecError("--device cuda: this program was built without CUDA");
#endif
}

int bench_rank(LoaderBenchOptions options, Communicator& world) {
  options.environment.data = parse_data_roots(options.data);
  const RunSpec spec =
      load_spec(options.spec, options.overrides, options.environment, world.size());
  Params params(spec.training, "run");
  const TrainingOptions training = TrainingOptions::read(params);
  const RunData data(spec, training, options.environment,
                     {.rank = world.rank(), .size = world.size()});
  const LoaderRate own = rank_rate(data, options, world);
  const double rate = world.all_reduce(own.images_per_s);
  if (world.rank() != 0) return static_cast<int>(ExitCode::Done);
  std::cerr << spec.dataset.name << ", augmentation " << spec.augmentation.name << ": " << rate
            << " images/s from " << world.size() << " ranks with "
            << options.environment.loader_threads << " loader threads each\n";
  std::cout << nlohmann::json{{"dataset", spec.dataset.name},
                              {"augmentation", spec.augmentation.name},
                              {"ranks", world.size()},
                              {"device", options.device},
                              {"made_on", own.made},
                              {"stages", shares(own.stages)},
                              {"loader_threads", options.environment.loader_threads},
                              {"images_per_s", rate}}
                   .dump(1)
            << std::endl;
  return static_cast<int>(ExitCode::Done);
}

}  // namespace
}  // namespace worker::bench_loader

BenchPart add_bench_loader(CLI::App& bench) {
  auto options = std::make_shared<worker::bench_loader::LoaderBenchOptions>();
  CLI::App* app = bench.add_subcommand("loader", "Images per second of a run's training loader");
  app->add_option("spec", options->spec, "Resolved spec (.json) or run file (.toml)")
      ->required()
      ->check(CLI::ExistingFile);
  app->add_option("overrides", options->overrides, "key=value, for a run file");
  add_data_option(*app, options->data);
  app->add_option(
         "--device", options->device,
         "Where batches are wanted: cpu, or cuda, which makes those of small images itself")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app->add_option("--part", options->part,
                  "On the cpu: whole batches, or crops as a device augments them")
      ->check(CLI::IsMember({"whole", "crops"}))
      ->capture_default_str();
  app->add_option("--seconds", options->seconds, "How long to measure")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--loader-threads", options->environment.loader_threads,
                  "Decoding threads of a rank; 0: none besides the caller")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  return {app, [options] {
            return run_as_rank([&](Communicator& world) {
              return worker::bench_loader::bench_rank(*options, world);
            });
          }};
}

}  // namespace ablate
