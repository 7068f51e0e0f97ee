#include "runner/train/run_data.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

DatasetSplits open_dataset(const Component& dataset, const DataRoots& roots) {
  const auto& info = Registry<DatasetInfo>::get(dataset.name);
  Params params(dataset.params, cat("dataset \"", dataset.name, "\""));
  const std::int64_t holdout =
      params.integer("holdout", 0, 0, std::numeric_limits<std::int64_t>::max(),
                     "training samples set aside for decisions");
  const DatasetOpener open = info.configure(params);
  params.finish();
  const auto root = roots.find(dataset.name);
  if (info.needs_root && root == roots.end()) {
    throw SpecError(
        cat("where is data set \"", dataset.name, "\"? Give --data ", dataset.name, "=DIR"));
  }
  return carve_holdout(open(info.needs_root ? root->second : std::filesystem::path()), holdout);
}

/// Runs that share a process share their data sets on the device.
ResidentSets& sets_of_process() {
  static ResidentSets sets;
  return sets;
}

AugmentRecipe read_recipe(const Component& augmentation) {
  Params params(augmentation.params, cat("augmentation \"", augmentation.name, "\""));
  const auto image_size = static_cast<int>(augmentation.params.find("image_size")->as_int());
  AugmentRecipe recipe = read_augmentation(augmentation.name, params, image_size);
  params.finish();
  return recipe;
}

}  // namespace

RunData::RunData(const RunSpec& spec, const TrainingOptions& options,
                 const Environment& environment, Shard shard)
    : splits_(open_dataset(spec.dataset, environment.data)),
      recipe_(read_recipe(spec.augmentation)),
      loader_options_{.seed = spec.seed,
                      .global_batch = options.global_batch,
                      .micro_batch = environment.micro_batch,
                      .mix_group = options.mix_group,
                      .shard = shard,
                      .threads = environment.loader_threads} {}

std::int64_t RunData::steps_per_epoch() const {
  return std::max<std::int64_t>(1, splits_.train->size() / loader_options_.global_batch);
}

std::unique_ptr<TrainLoader> RunData::train_loader(bool pinned) const {
  LoaderOptions options = loader_options_;
  options.pinned = pinned;
  return std::make_unique<TrainLoader>(splits_.train, recipe_, options);
}

std::int64_t RunData::micro_batch() const {
  return BatchPlan(splits_.train->size(), recipe_, loader_options_).rows;
}

std::unique_ptr<EvalLoader> RunData::eval_loader(std::shared_ptr<const Dataset> split) const {
  return std::make_unique<EvalLoader>(std::move(split), recipe_, loader_options_);
}

std::string RunData::why_not_resident() const {
  return ResidentLoader::why_not(*splits_.train, recipe_);
}

std::unique_ptr<ResidentLoader> RunData::resident_loader(at::Device device) const {
  return std::make_unique<ResidentLoader>(sets_of_process().get(*splits_.train, device), recipe_,
                                          loader_options_);
}

std::string RunData::why_not_cropped() const {
  if (splits_.train->facts().dense) return "labels of pixels are cut on the host";
  return CropLoader::why_not(recipe_);
}

std::unique_ptr<CropLoader> RunData::crop_loader(bool pinned) const {
  return std::make_unique<CropLoader>(splits_.train, recipe_, loader_options_, pinned);
}

std::unique_ptr<EvalBatches> RunData::eval_batches(std::shared_ptr<const Dataset> split,
                                                   at::Device device) const {
  if (device.is_cpu()) return make_host_batches(eval_loader(std::move(split)));
  if (ResidentEvalLoader::why_not(*split, recipe_).empty()) {
    return make_resident_batches(std::make_unique<ResidentEvalLoader>(
        sets_of_process().get(*split, device), recipe_, loader_options_));
  }
  if constexpr (ABLATE_HAS_CUDA) {
    if (!split->facts().dense) {
      return make_cropped_batches(
          std::make_unique<CropEvalLoader>(std::move(split), recipe_, loader_options_,
                                           /*pinned=*/true),
          device);
    }
  }
  return make_host_batches(eval_loader(std::move(split)));
}

void RunData::visit(DecisionSplit split, std::int64_t samples, at::ScalarType dtype,
                    at::Device device, const TrainContext::LabelledVisitor& visitor) const {
  if (split == DecisionSplit::Holdout && !splits_.holdout) {
    throw SpecError(
        "a method wants to decide on held-out samples, but there are none; set "
        "dataset.holdout = N");
  }
  const auto loader = eval_loader(split == DecisionSplit::Train ? splits_.train : splits_.holdout);
  loader->start(samples);
  for (std::int64_t i = 0; i < loader->batches(); ++i) {
    const Batch batch = loader->next();
    const at::Tensor& labels = batch.label_maps.defined() ? batch.label_maps : batch.labels;
    visitor(batch.images.to(device, dtype), labels.to(device), batch.weights.to(device));
  }
}

nlohmann::json RunData::facts() const {
  return {{"n", splits_.train->size()}, {"fingerprint", splits_.train->fingerprint()}};
}

}  // namespace ablate
