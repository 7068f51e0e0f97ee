#include "runner/worker/bench_input.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/cpu_quota.h"
#include "runner/core/error.h"
#include "runner/measure/throughput.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_part.h"
#include "runner/worker/bench_report.h"
#include "runner/worker/bench_subject.h"
#include "runner/worker/data_options.h"
#include "runner/worker/loader_threads.h"
#include "runner/worker/spec_file.h"
#include "runner/worker/standalone_model.h"
#include "runner/worker/torch_switches.h"

namespace ablate {
namespace worker::bench_input {
namespace {

using nlohmann::json;

constexpr std::int64_t kWarmUpSteps = 8;
constexpr double kFullSpeed = 0.95;  // of images that lie ready: no stage is slow

struct InputBenchOptions {
  std::filesystem::path spec;
  std::vector<std::string> data, overrides;
  std::string device = "cpu";
  double seconds = 3;
  int rounds = 3, loader_threads = -1;
};

class HostInput final : public InputSubject {
 public:
  HostInput(const Structure& structure, const Protocol& protocol, const RunData& data)
      : subject_(structure, protocol), loader_(data.train_loader()) {
    loader_->seek(0, 0);
    first_ = loader_->next();
    ways_.push_back({.name = "ready", .steps = [this](std::int64_t steps) {
                       subject_.take(first_);
                       for (std::int64_t i = 0; i < steps; ++i) subject_.repeat();
                       return 0.0;
                     }});
    ways_.push_back({.name = "whole",
                     .steps = [this](std::int64_t steps) { return load(steps); },
                     .take_stages = [this] { return loader_->take_stage_seconds(); }});
  }

  const std::vector<InputWay>& ways() const override { return ways_; }

 private:
  double load(std::int64_t steps) {
    loader_->take_wait_seconds();
    for (std::int64_t i = 0; i < steps; ++i) {
      subject_.take(loader_->next());
      subject_.repeat();
    }
    return loader_->take_wait_seconds();
  }

  BenchSubject subject_;
  std::unique_ptr<TrainLoader> loader_;
  Batch first_;
  std::vector<InputWay> ways_;
};

/// What a way did in one window.
struct Window {
  double images_per_s = 0, waited = 0;  // share of the time
  StageSeconds stages{};
  double images = 0;
};

/// Steps for about so many seconds, after others that use up what was loaded ahead.
Window measure(const InputWay& way, const InputBenchOptions& options, std::int64_t batch) {
  const auto timed = [&](std::int64_t steps) {
    if (way.take_stages) way.take_stages();
    const double start = steady_seconds();
    const double waited = way.steps(steps);
    const double elapsed = steady_seconds() - start;
    const auto images = static_cast<double>(steps * batch);
    return Window{.images_per_s = images / elapsed,
                  .waited = waited / elapsed,
                  .stages = way.take_stages ? way.take_stages() : StageSeconds{},
                  .images = images};
  };
  if (way.take_stages) way.steps(options.loader_threads);
  const Window first = timed(kWarmUpSteps);
  const double steps = options.seconds * first.images_per_s / static_cast<double>(batch);
  return timed(std::max<std::int64_t>(1, std::llround(steps)));
}

double median_of(const std::vector<Window>& windows, double Window::*part) {
  std::vector<double> values;
  for (const Window& window : windows) values.push_back(window.*part);
  return Spread::of(values).median;
}

double median_ratio(const std::vector<Window>& windows, const std::vector<Window>& ready) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    ratios.push_back(windows[i].images_per_s / ready[i].images_per_s);
  }
  return Spread::of(ratios).median;
}

/// What keeps a way from full speed: a stage of its loader where most of the loss is waiting for
/// images, else the device, which has to finish them beside the steps.
std::string slow_stage(double ratio, double waited, const StageSeconds& stages) {
  if (ratio >= kFullSpeed) return "none";
  if (waited < (1 - ratio) / 2) return "device";
  const auto slowest = std::ranges::max_element(stages.of) - stages.of.begin();
  return std::string(kLoadStageNames[static_cast<std::size_t>(slowest)]);
}

json way_json(const InputWay& way, const std::vector<Window>& windows,
              const std::vector<Window>& ready) {
  const double ratio = median_ratio(windows, ready);
  const double waited = median_of(windows, &Window::waited);
  json result = {{"images_per_s", json::array()}, {"ratio_to_ready", ratio}, {"waited", waited}};
  StageSeconds stages;
  double images = 0;
  for (const Window& window : windows) {
    result["images_per_s"].push_back(window.images_per_s);
    stages += window.stages;
    images += window.images;
  }
  result["slow_stage"] = slow_stage(ratio, waited, stages);
  if (!way.take_stages) return result;
  for (std::size_t i = 0; i < stages.of.size(); ++i) {
    result["stages"][std::string(kLoadStageNames[i])] = stages.of[i] / stages.sum();
  }
  const double an_image = stages.sum() / images;
  result["images_per_s_a_thread"] = 1 / an_image;
  // One more takes the batches and enqueues the steps.
  result["cores_for_ready_speed"] =
      std::ceil(an_image * median_of(ready, &Window::images_per_s)) + 1;
  return result;
}

std::unique_ptr<InputSubject> make_subject(const Structure& structure, const Protocol& protocol,
                                           const RunData& data) {
  if (protocol.device == "cpu") {
    if (protocol.dtype == "bf16") throw SpecError("precision = \"bf16\" needs --device cuda");
    return std::make_unique<HostInput>(structure, protocol, data);
  }
  if constexpr (ABLATE_HAS_CUDA) {
    choose_device(0);
    return make_device_input(structure, protocol, data);
  }
  throw SpecError("--device cuda: this program was built without CUDA");
}

/// All ways in turns; windows by way.
std::vector<std::vector<Window>> measure_ways(const std::vector<InputWay>& ways,
                                              const InputBenchOptions& options,
                                              std::int64_t batch) {
  std::vector<std::vector<Window>> windows(ways.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      windows[i].push_back(measure(ways[i], options, batch));
      std::cerr << ways[i].name << ": " << windows[i].back().images_per_s << " images/s\n";
    }
  }
  return windows;
}

int bench(InputBenchOptions options) {
  set_torch_switches(1);
  Environment environment;
  environment.data = parse_data_roots(options.data);
  const auto world = make_self_communicator();
  if (options.loader_threads < 0) options.loader_threads = spare_loader_threads(*world, 1);
  environment.loader_threads = options.loader_threads;
  const RunSpec spec = load_spec(options.spec, options.overrides, environment, 1);
  Params params(spec.training, "run");
  const TrainingOptions training = TrainingOptions::read(params);
  const RunData data(spec, training, environment, {});
  const Protocol protocol{.kind = BenchKind::Train,
                          .dtype = training.fused() ? "bf16" : training.precision,
                          .batch = training.global_batch,
                          .device = options.device,
                          .threads = 1};
  const auto subject = make_subject(structure_of_spec(spec, environment.data), protocol, data);
  const std::vector<InputWay>& ways = subject->ways();
  const auto windows = measure_ways(ways, options, protocol.batch);
  json report = {{"record", protocol_record(protocol, kWarmUpSteps, options.rounds)},
                 {"dataset", spec.dataset.name},
                 {"samples", data.splits().train->size()},
                 {"model", spec.model.name},
                 {"augmentation", spec.augmentation.name},
                 {"cores", usable_cpus()},
                 {"loader_threads", options.loader_threads}};
  for (std::size_t i = 0; i < ways.size(); ++i) {
    report["ways"][ways[i].name] = way_json(ways[i], windows[i], windows[0]);
  }
  if (const double rate = subject->finishing_rate(options.seconds); rate > 0) {
    report["device_finishes_images_per_s"] = rate;
  }
  std::cout << report.dump(1) << std::endl;
  return static_cast<int>(ExitCode::Done);
}

}  // namespace
}  // namespace worker::bench_input

BenchPart add_bench_input(CLI::App& bench) {
  auto options = std::make_shared<worker::bench_input::InputBenchOptions>();
  CLI::App* app = bench.add_subcommand(
      "input",
      "Training steps of a run whose images come from its loader, beside the same steps "
      "on images that lie ready");
  app->add_option("spec", options->spec, "Resolved spec (.json) or run file (.toml)")
      ->required()
      ->check(CLI::ExistingFile);
  app->add_option("overrides", options->overrides, "key=value, for a run file");
  add_data_option(*app, options->data);
  app->add_option("--device", options->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app->add_option("--seconds", options->seconds, "Of a measurement")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--rounds", options->rounds, "Measurements of each kind, in turns")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--loader-threads", options->loader_threads,
                  "Decoding threads; without a number as many as there are processors, less one")
      ->check(CLI::NonNegativeNumber);
  return {app, [options] { return worker::bench_input::bench(*options); }};
}

}  // namespace ablate
