#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/entropy_profile.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "runner/measure/spectrum.h"
#include "runner/train/evaluate.h"
#include "runner/train/finals.h"
#include "runner/train/run_data.h"
#include "runner/worker/data_options.h"
#include "runner/worker/finished_run.h"
#include "runner/worker/ranks.h"
#include "runner/worker/torch_switches.h"
#include "runner/worker/verb.h"

namespace ablate::worker::analyse {
namespace {

using nlohmann::json;

struct AnalyseOptions {
  std::filesystem::path run, transplant_from;
  std::vector<std::string> data;
  std::string split = "test";
  std::int64_t samples = 2048, batch = 0;
  int threads = 1, loader_threads = 1;
};

/// What a model computes of some images, on all ranks together.
struct Analysis {
  std::map<std::string, double> entropies;  ///< by tap
  std::vector<Spectrum::Point> spectrum;    ///< empty when tokens make no grid
};

/// Outputs of branches, and the stream behind each.
constexpr const char* kPlaces[] = {"attn", "mixed", "mlp", ""};

std::string tap_of(const Block& block, const std::string& place) {
  return place.empty() ? block.block_name() : cat(block.block_name(), ".", place);
}

/// The tokens behind the last block as maps, (B, C, side, side); undefined when some have gone.
at::Tensor last_maps(Model& model, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  at::Tensor& first = state.taps["patch_embed"];
  at::Tensor& last = state.taps[model.blocks().back()->block_name()];
  model.forward(images, state);
  if (!last.defined() || last.sizes() != first.sizes()) return {};
  const at::Tensor patches = last.slice(1, state.protected_tokens);
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(patches.size(1))));
  if (side < 2 || side * side != patches.size(1)) return {};
  return patches.transpose(1, 2).unflatten(2, {side, side});
}

Analysis look_at(Model& model, EvalLoader& loader, std::int64_t samples, at::ScalarType dtype,
                 Communicator& world) {
  std::vector<std::string> taps;
  for (const Block* block : model.blocks()) {
    for (const char* place : kPlaces) taps.push_back(tap_of(*block, place));
  }
  if (taps.empty()) throw SpecError("analyse: the model has no transformer blocks to look at");
  EntropyProfile profile(taps);
  Spectrum spectrum;
  bool grid = true;
  model.eval();
  loader.start(samples);
  for (std::int64_t i = 0; i < loader.batches(); ++i) {
    const Batch batch = loader.next();
    const at::Tensor images = batch.images.to(dtype);
    profile.add(model, images, batch.weights);
    const at::Tensor maps = grid ? last_maps(model, images) : at::Tensor();
    grid = maps.defined();
    if (grid) spectrum.add(maps, batch.weights);
  }
  profile.reduce(world, at::kCPU);
  if (grid) spectrum.reduce(world);
  return {profile.entropies(), grid ? spectrum.points() : std::vector<Spectrum::Point>()};
}

json entropy_json(Model& model, const std::map<std::string, double>& entropies) {
  json blocks = json::array();
  for (const Block* block : model.blocks()) {
    json row = json::object();
    for (const std::string place : kPlaces) {
      const auto found = entropies.find(tap_of(*block, place));
      row[place.empty() ? "out" : place] = found == entropies.end() ? json() : json(found->second);
    }
    blocks.push_back(row);
  }
  return blocks;
}

json spectrum_json(const std::vector<Spectrum::Point>& points) {
  json list = json::array();
  for (const Spectrum::Point& point : points) {
    list.push_back({{"radius", point.radius}, {"log_amplitude", point.log_amplitude}});
  }
  return list;
}

/// Puts the tensors of one block of `donor` into `model` while it lives, where both have them.
class Transplant {
 public:
  Transplant(const Model& model, const std::map<std::string, at::Tensor>& donor,
             const std::string& block) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : named_tensors(model)) {
      const auto found = donor.find(name);
      if (!name.starts_with(block + ".") || found == donor.end()) continue;
      if (found->second.sizes() != tensor.sizes()) continue;
      restore_.emplace_back(tensor, tensor.clone());
      at::Tensor(tensor).copy_(found->second);
    }
  }
  ~Transplant() {
    const at::NoGradGuard no_grad;
    for (auto& [tensor, value] : restore_) tensor.copy_(value);
  }
  Transplant(const Transplant&) = delete;
  Transplant& operator=(const Transplant&) = delete;

  bool any() const { return !restore_.empty(); }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> restore_;
};

/// The first metric of the task with each block replaced by that of another run, without tuning.
json transplant_json(const AnalyseOptions& options, Model& model, const FinishedRun& run,
                     const RunData& data, at::ScalarType dtype, Communicator& world) {
  const auto donor = load_final_model(
      read_finals(FinishedRun::find(options.transplant_from).finals), false, dtype);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : named_tensors(*donor)) tensors.emplace(name, tensor);
  const auto task = make_task(run.spec.task, data.splits().train->facts());
  const auto split = choose_split(data.splits(), options.split);
  const auto forward = make_plain_forward(model, dtype, at::kCPU);
  const auto measure = [&] {
    const auto batches = data.eval_batches(split, at::kCPU);
    return evaluate(model, *forward, *task, *batches, split->size(), at::kCPU, world)
        .metrics.front();
  };
  const TaskMetric own = measure();
  json blocks = json::array();
  for (const Block* block : model.blocks()) {
    const Transplant transplant(model, tensors, block->block_name());
    if (!transplant.any()) {
      throw SpecError(
          cat("--transplant-from: that run has no ", block->block_name(), " of the same shape"));
    }
    blocks.push_back(measure().value);
  }
  return {{"metric", own.name}, {"unit", own.unit}, {"own", own.value}, {"blocks", blocks}};
}

int analyse_rank(const AnalyseOptions& options, Communicator& world) {
  set_torch_switches(options.threads);
  const FinishedRun run = FinishedRun::find(options.run);
  const TrainingOptions training = run.options(options.batch, world.size());
  const RunData data(
      run.spec, training,
      {.data = parse_data_roots(options.data), .loader_threads = options.loader_threads},
      {.rank = world.rank(), .size = world.size()});
  const at::ScalarType dtype = training.precision == "fp64" ? at::kDouble : at::kFloat;
  const auto model = load_final_model(read_finals(run.finals), false, dtype);
  const auto split = choose_split(data.splits(), options.split);
  const Analysis analysis =
      look_at(*model, *data.eval_loader(split), options.samples, dtype, world);
  json report{{"run", run.spec.id()},
              {"split", options.split},
              {"n", std::min(options.samples, split->size())},
              {"entropy", entropy_json(*model, analysis.entropies)},
              {"spectrum", spectrum_json(analysis.spectrum)}};
  if (!options.transplant_from.empty()) {
    report["transplant"] = transplant_json(options, *model, run, data, dtype, world);
  }
  if (world.rank() == 0) std::cout << report.dump(1) << std::endl;
  return static_cast<int>(ExitCode::Done);
}

void add_options(CLI::App& app, AnalyseOptions& options) {
  app.add_option("run", options.run, "Folder of a finished run: out/runs/<id>, or its final")
      ->required()
      ->check(CLI::ExistingDirectory);
  add_data_option(app, options.data);
  app.add_option("--transplant-from", options.transplant_from,
                 "Folder of another run, whose blocks take the place of this one's, one at a time")
      ->check(CLI::ExistingDirectory);
  app.add_option("--split", options.split, "test, holdout or train (without augmentation)")
      ->check(CLI::IsMember({"test", "holdout", "train"}))
      ->capture_default_str();
  app.add_option("--samples", options.samples, "Images to look at")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Images of one pass on all ranks; 0: as in training")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--threads", options.threads, "Threads of a rank's tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--loader-threads", options.loader_threads, "Decoding threads of a rank")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

const Registry<Verb>::Add added{{
    .name = "analyse",
    .summary = "Entropies and spectrum of a finished run's features; JSON on standard output",
    .examples =
        "  ablate-train analyse out/runs/<id> --data cifar100=DIR\n"
        "  ablate-train analyse out/runs/<id> --transplant-from out/runs/<dense> --split holdout\n"
        "Entropy: sum of ln sigma over channels, each token of each image a sample; attn and mlp\n"
        "are outputs of branches, mixed and out the stream behind them.\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto options = std::make_shared<AnalyseOptions>();
      add_options(app, *options);
      return [options] {
        return run_as_rank([&](Communicator& world) { return analyse_rank(*options, world); });
      };
    },
}};

}  // namespace
}  // namespace ablate::worker::analyse
