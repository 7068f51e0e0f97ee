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
  std::string device = "cpu";
  double seconds = 10;
  Environment environment;
};

/// Makes batches for so many seconds and throws them away. Returns this rank's images per second.
double loader_rate(TrainLoader& loader, double seconds) {
  constexpr int kWarmUp = 2;
  loader.seek(0, 0);
  for (int i = 0; i < kWarmUp; ++i) loader.next();
  std::int64_t images = 0;
  const double start = steady_seconds();
  double elapsed = 0;
  while (elapsed < seconds) {
    images += loader.next().images.size(0);
    elapsed = steady_seconds() - start;
  }
  return static_cast<double>(images) / elapsed;
}

/// This rank's batches, and where they are made.
std::pair<double, std::string> rank_rate(const RunData& data, const LoaderBenchOptions& options,
                                         Communicator& world) {
  if (options.device == "cpu") {
    const auto loader = data.train_loader();
    world.barrier();
    return {loader_rate(*loader, options.seconds), "host"};
  }
#if ABLATE_HAS_CUDA
  const int devices = c10::cuda::device_count();
  if (devices == 0) throw SpecError("--device cuda: there is no CUDA device");
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(world.rank() % devices));
  const DeviceLoaderRate rate = device_loader_rate(data, device, options.seconds);
  return {rate.images_per_s, rate.made};
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
  const auto [own_rate, made] = rank_rate(data, options, world);
  const double rate = world.all_reduce(own_rate);
  if (world.rank() != 0) return static_cast<int>(ExitCode::Done);
  std::cerr << spec.dataset.name << ", augmentation " << spec.augmentation.name << ": " << rate
            << " images/s from " << world.size() << " ranks with "
            << options.environment.loader_threads << " loader threads each\n";
  std::cout << nlohmann::json{{"dataset", spec.dataset.name},
                              {"augmentation", spec.augmentation.name},
                              {"ranks", world.size()},
                              {"device", options.device},
                              {"made_on", made},
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
