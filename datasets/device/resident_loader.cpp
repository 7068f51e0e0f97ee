#include "datasets/device/resident_loader.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// Why evaluation images of this recipe are not just central windows.
std::string why_resized(const DatasetFacts& facts, const AugmentRecipe& recipe) {
  if (recipe.image_size > augment::kMaxSide) {
    return cat("image_size = ", recipe.image_size, " is larger than ", augment::kMaxSide);
  }
  if (recipe.eval_resize != facts.image_size) {
    return cat("images of ", facts.image_size, " pixels are resized to ", recipe.eval_resize);
  }
  return "";
}

Batch empty_batch(std::int64_t rows, int side, at::Device device) {
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(device);
  Batch batch;
  batch.images = at::zeros({rows, Image::kChannels, side, side}, floats);
  batch.labels = at::zeros({rows}, floats.dtype(at::kLong));
  batch.weights = at::ones({rows}, floats);
  return batch;
}

template <typename T>
T* target_data(const at::Tensor& tensor, at::IntArrayRef sizes, at::Device device) {
  ABLATE_CHECK(tensor.defined() && tensor.sizes() == sizes && tensor.is_contiguous() &&
                   tensor.device() == device,
               "buffers of another batch");
  return tensor.data_ptr<T>();
}

template <typename AnyBatch>
void make_on(at::Device device, const AnyBatch& batch) {
  if (device.is_cpu()) return augment::host::make_batch(batch);
#if ABLATE_HAS_CUDA
  const c10::cuda::CUDAGuard guard(device);
  augment::make_batch(batch, c10::cuda::getCurrentCUDAStream().stream());
#else
  ABLATE_CHECK(false, "a program without CUDA was asked for batches on ", device.str());
#endif
}

}  // namespace

std::string ResidentLoader::why_not(const Dataset& dataset, const AugmentRecipe& recipe) {
  std::string reason = ResidentSet::why_not(dataset);
  if (!reason.empty()) return reason;
  const DatasetFacts& facts = dataset.facts();
  if (recipe.crop == CropMode::Resized) return "crop = \"resized\" resamples images";
  if (recipe.crop == CropMode::None) return why_resized(facts, recipe);
  if (recipe.image_size > augment::kMaxSide) {
    return cat("image_size = ", recipe.image_size, " is larger than ", augment::kMaxSide);
  }
  if (facts.image_size + 2 * recipe.pad < recipe.image_size) {
    return cat("image_size = ", recipe.image_size, " does not fit into padded images");
  }
  return "";
}

ResidentLoader::ResidentLoader(std::shared_ptr<const ResidentSet> set, const AugmentRecipe& recipe,
                               const LoaderOptions& options)
    : set_(std::move(set)),
      plan_(set_->size(), recipe, options),
      rank_(options.shard.rank),
      batch_{.set = set_->images(),
             .recipe = augment::pixel_recipe(recipe, set_->facts().normalization),
             .order = augment::keyed_order(static_cast<std::uint64_t>(set_->size()), options.seed,
                                           Purpose::DataOrder),
             .augment = augment::stream_key(options.seed, Purpose::Augment),
             .mix = augment::stream_key(options.seed, Purpose::Mix),
             .global_batch = options.global_batch,
             .steps_per_epoch = plan_.steps,
             .rows = plan_.rows} {
  if (!recipe.mixing.enabled()) return;
  batch_.mix_group = static_cast<int>(options.mix_group);
  plans_ = at::empty({plan_.rows / options.mix_group, std::int64_t{sizeof(MixPlan)}},
                     at::TensorOptions().dtype(at::kByte).device(set_->device()));
  batch_.plans = static_cast<MixPlan*>(plans_.data_ptr());
}

Batch ResidentLoader::make_buffers() const {
  Batch batch = empty_batch(plan_.rows, batch_.recipe.side, set_->device());
  if (batch_.mix_group == 0) return batch;
  batch.other_labels = at::zeros_like(batch.labels);
  batch.mix = at::ones_like(batch.weights);
  return batch;
}

void ResidentLoader::enqueue(const Batch& target, std::int64_t micro_batch,
                             const std::int64_t* step) const {
  const at::Device device = set_->device();
  const int side = batch_.recipe.side;
  augment::TrainBatch batch = batch_;
  batch.first_position = plan_.first_position(rank_, micro_batch);
  batch.step = step;
  batch.images =
      target_data<float>(target.images, {plan_.rows, Image::kChannels, side, side}, device);
  batch.labels = target_data<std::int64_t>(target.labels, {plan_.rows}, device);
  if (batch.mix_group > 0) {
    batch.other_labels = target_data<std::int64_t>(target.other_labels, {plan_.rows}, device);
    batch.mixed = target_data<float>(target.mix, {plan_.rows}, device);
  }
  make_on(device, batch);
}

std::string ResidentEvalLoader::why_not(const Dataset& dataset, const AugmentRecipe& recipe) {
  const std::string reason = ResidentSet::why_not(dataset);
  return reason.empty() ? why_resized(dataset.facts(), recipe) : reason;
}

ResidentEvalLoader::ResidentEvalLoader(std::shared_ptr<const ResidentSet> set,
                                       const AugmentRecipe& recipe, const LoaderOptions& options)
    : set_(std::move(set)),
      options_(options),
      rows_(eval_rows(options)),
      samples_(set_->size()),
      batch_{.set = set_->images(),
             .recipe = augment::pixel_recipe(recipe, set_->facts().normalization),
             .rows = rows_} {}

void ResidentEvalLoader::start(std::int64_t limit) {
  samples_ = limit == 0 ? set_->size() : std::min(limit, set_->size());
}

std::int64_t ResidentEvalLoader::batches() const {
  return (samples_ + options_.global_batch - 1) / options_.global_batch;
}

std::int64_t ResidentEvalLoader::first_of(std::int64_t number) const {
  return number * options_.global_batch + options_.shard.rank * rows_;
}

Batch ResidentEvalLoader::make_buffers() const {
  return empty_batch(rows_, batch_.recipe.side, set_->device());
}

void ResidentEvalLoader::enqueue(Batch& target, std::int64_t number) const {
  const at::Device device = set_->device();
  const int side = batch_.recipe.side;
  target.first_position = first_of(number);
  target.indices.clear();
  for (std::int64_t row = 0; row < rows_; ++row) {
    const std::int64_t index = target.first_position + row;
    target.indices.push_back(index < samples_ ? index : -1);
  }
  augment::EvalBatch batch = batch_;
  batch.first = target.first_position;
  batch.end = samples_;
  batch.images = target_data<float>(target.images, {rows_, Image::kChannels, side, side}, device);
  batch.labels = target_data<std::int64_t>(target.labels, {rows_}, device);
  batch.weights = target_data<float>(target.weights, {rows_}, device);
  make_on(device, batch);
}

}  // namespace ablate
