#pragma once

#include "datasets/device/batches.h"
#include "datasets/transforms.h"

namespace ablate::augment {

// Training batches whose images were decoded on the host, no more of each than its crop, and are
// resampled, augmented, normalised and mixed where the network is. What they are to hold is defined
// by TrainTransform and TrainLoader.

/// A row of the batch.
struct CropRow {
  std::int64_t pixels = 0;  ///< where its (source.height, source.width, 3) bytes begin
  std::int64_t rows = 0;    ///< where room for (source.height, window.width, 3) bytes begins
  std::int64_t taps = 0;    ///< where room for its filter begins, in words
  std::int64_t label = 0;
  std::uint64_t key = 0;    ///< of AugmentKey::sample
  Box source;               ///< the decoded part; source_box(resized)
  ResizedWindow resized{};  ///< whose window is the network's input
};

/// How much room rows take, one after the other.
struct CropRoom {
  std::int64_t pixels = 0, rows = 0, taps = 0;

  /// Gives a row its places.
  void place(CropRow& row);
};

/// The row of a sample, but for its places.
CropRow crop_row(const CropPlan& plan, std::uint64_t key, std::int64_t label);

/// One micro-batch. Of `train`, set and order are not looked at; `step` says which step's mixing
/// plans apply.
struct CropBatch {
  TrainBatch train;
  const CropRow* crops = nullptr;        ///< (train.rows)
  const std::uint8_t* pixels = nullptr;  ///< of all rows
  std::uint8_t* rows = nullptr;          ///< room, see CropRoom
  std::int32_t* taps = nullptr;          ///< room, likewise
  std::uint8_t* canvases = nullptr;      ///< room for (train.rows, 2, side, side, 3) bytes
  /// (train.rows, 3, side, side): the batch, rounded, with train.images as room to work in. Null:
  /// the batch is train.images.
  kernels::bfloat16* half = nullptr;
};

#if ABLATE_HAS_CUDA
void make_batch(const CropBatch& batch, kernels::Stream stream);
#endif

namespace host {
void make_batch(const CropBatch& batch);
}

}  // namespace ablate::augment
