#include "datasets/device/batches.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "datasets/device/train_sample.h"

namespace ablate::augment {

KeyedOrder keyed_order(std::uint64_t count, std::uint64_t seed, Purpose purpose) {
  return {.key = stream_key(seed, purpose),
          .count = count,
          .half_bits = std::max(1, (static_cast<int>(std::bit_width(count - 1)) + 1) / 2)};
}

PixelRecipe pixel_recipe(const AugmentRecipe& recipe, const Normalization& statistics) {
  PixelRecipe result;
  result.side = recipe.image_size;
  result.random_crop = recipe.crop == CropMode::Pad;
  result.pad = recipe.pad;
  result.flip = recipe.flip;
  result.randomly_augmented = recipe.randaugment.has_value();
  result.randaugment = recipe.randaugment.value_or(RandAugment{});
  result.erasing = recipe.erasing;
  result.mixing = recipe.mixing;
  result.repeated = recipe.repeated;
  const Rgb fill = mean_color(statistics);
  std::ranges::copy(statistics.mean, result.mean);
  std::ranges::copy(statistics.std, result.std);
  std::ranges::copy(fill, result.fill);
  return result;
}

namespace host {

void make_batch(const TrainBatch& batch) {
  std::vector<std::uint8_t> memory(canvas_bytes(batch.recipe.side));
  SampleDraw draw{};
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    make_train_sample(OneThread{}, batch, row, draw, canvas_in(memory.data(), batch.recipe.side));
  }
  mix_batch(batch, batch.images);
}

template <typename T>
void mix_batch(const TrainBatch& batch, T* out) {
  if (batch.mix_group == 0) {
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      finish_rows(OneThread{}, batch, row, row, out);
    }
    return;
  }
  for (std::int64_t first = 0; first < batch.rows; first += batch.mix_group) {
    const MixPlan plan = draw_plan(batch, (batch.first_position + first) / batch.mix_group);
    for (std::int64_t i = 0; i < (batch.mix_group + 1) / 2; ++i) {
      mix_rows(OneThread{}, batch, plan, first + i, first + batch.mix_group - 1 - i, out);
    }
  }
}

template void mix_batch<float>(const TrainBatch& batch, float* out);
template void mix_batch<kernels::bfloat16>(const TrainBatch& batch, kernels::bfloat16* out);

void make_batch(const EvalBatch& batch) {
  for (std::int64_t row = 0; row < batch.rows; ++row) make_eval_sample(OneThread{}, batch, row);
}

}  // namespace host

}  // namespace ablate::augment
