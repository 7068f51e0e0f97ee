#pragma once

#include <cstdint>

#include "datasets/device/counter_stream.h"
#include "datasets/recipe.h"
#include "methods/kernels/bfloat16.h"

namespace ablate::augment {

// Batches made from a set that lies in memory as 8-bit images of one size, on the device or, by the
// same code, on the host. What they are to hold is defined by TrainLoader and EvalLoader.

/// The largest side that kernels take, of stored images as well as of the network's input.
inline constexpr int kMaxSide = 64;

/// A set in memory.
struct ImageSet {
  const std::uint8_t* pixels = nullptr;  ///< (count, side, side, 3)
  const std::int64_t* labels = nullptr;  ///< (count)
  std::int64_t count = 0;
  int side = 0;
};

/// What kernels need of AugmentRecipe and Normalization.
struct PixelRecipe {
  int side = 0;              ///< of the network's input
  bool random_crop = false;  ///< otherwise the central window
  int pad = 0;
  double flip = 0;
  bool randomly_augmented = false;
  RandAugment randaugment;
  Erasing erasing;
  Mixing mixing;
  int repeated = 1;
  float mean[3] = {}, std[3] = {};
  std::uint8_t fill[3] = {};
};

PixelRecipe pixel_recipe(const AugmentRecipe& recipe, const Normalization& statistics);

/// One micro-batch of training. `step` counts from the beginning of the run and lies in device
/// memory, so that a captured launch makes the batch of whatever step it is replayed in.
struct TrainBatch {
  ImageSet set;
  PixelRecipe recipe;
  KeyedOrder order;        ///< of the set, by epoch
  StreamKey augment, mix;  ///< of Purpose::Augment and Purpose::Mix
  std::int64_t global_batch = 0, steps_per_epoch = 0;
  std::int64_t first_position = 0;  ///< of row 0 in the global batch
  std::int64_t rows = 0;
  int mix_group = 0;         ///< 0: no mixing
  MixPlan* plans = nullptr;  ///< (rows / mix_group): room for kernels to work in
  const std::int64_t* step = nullptr;

  float* images = nullptr;               ///< (rows, 3, side, side)
  std::int64_t* labels = nullptr;        ///< (rows)
  std::int64_t* other_labels = nullptr;  ///< (rows); with mixing only
  float* mixed = nullptr;                ///< (rows), weight of `labels`; with mixing only
};

/// One batch of evaluation: the samples from `first` on, in order.
struct EvalBatch {
  ImageSet set;
  PixelRecipe recipe;
  std::int64_t first = 0;
  std::int64_t end = 0;  ///< rows from this sample on are padding: all zero
  std::int64_t rows = 0;

  float* images = nullptr;
  std::int64_t* labels = nullptr;
  float* weights = nullptr;  ///< (rows): 1, or 0 for padding
};

#if ABLATE_HAS_CUDA
void make_batch(const TrainBatch& batch, kernels::Stream stream);
void make_batch(const EvalBatch& batch, kernels::Stream stream);
#endif

namespace host {
void make_batch(const TrainBatch& batch);
void make_batch(const EvalBatch& batch);
/// The last part of making one: mixes the rows into `out`, which is batch.images, or as many
/// bfloat16.
template <typename T>
void mix_batch(const TrainBatch& batch, T* out);
}  // namespace host

}  // namespace ablate::augment
