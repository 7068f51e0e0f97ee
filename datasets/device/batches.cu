// Compiled without contracted multiply-adds: they would change pixels.
#include "datasets/device/batches.h"
#include "datasets/device/block_team.h"
#include "datasets/device/train_sample.h"
#include "methods/kernels/cuda_check.h"
#include "runner/core/error.h"

namespace ablate::augment {
namespace {

// Threads to an image: as many as shorten the wait for one of few, or as few as serve many best.
constexpr int kManyThreads = 512;
constexpr int kFewThreads = 256;

/// Blocks: the plans of `groups` mixing groups, then the rows.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) train_kernel(TrainBatch batch, unsigned groups) {
  extern __shared__ __align__(16) std::uint8_t memory[];
  __shared__ Room<SampleDraw> draw;
  if (blockIdx.x < groups) {
    if (threadIdx.x > 0) return;
    const std::int64_t first = std::int64_t{blockIdx.x} * batch.mix_group;
    batch.plans[blockIdx.x] = draw_plan(batch, (batch.first_position + first) / batch.mix_group);
    return;
  }
  make_train_sample(Block<kThreads>{}, batch, blockIdx.x - groups, draw.value(),
                    canvas_in(memory, batch.recipe.side));
}

/// Grid (groups, pairs of a group).
__global__ void __launch_bounds__(kManyThreads) mix_kernel(TrainBatch batch) {
  const std::int64_t first = std::int64_t{blockIdx.x} * batch.mix_group;
  mix_rows(Block<kManyThreads>{}, batch, batch.plans[blockIdx.x], first + blockIdx.y,
           first + batch.mix_group - 1 - blockIdx.y, batch.images);
}

__global__ void __launch_bounds__(kFewThreads) eval_kernel(EvalBatch batch) {
  make_eval_sample(Block<kFewThreads>{}, batch, blockIdx.x);
}

void check_sides(const ImageSet& set, const PixelRecipe& recipe) {
  ABLATE_CHECK(set.side <= kMaxSide && recipe.side <= kMaxSide, "images of side ", set.side,
               " cut to ", recipe.side);
}

}  // namespace

void make_batch(const TrainBatch& batch, kernels::Stream stream) {
  if (batch.rows == 0) return;
  check_sides(batch.set, batch.recipe);
  const auto rows = static_cast<unsigned>(batch.rows);
  const auto group = static_cast<unsigned>(batch.mix_group);
  const unsigned groups = group == 0 ? 0 : rows / group;
  const std::size_t shared = canvas_bytes(batch.recipe.side);
  if (batch.rows <= 2 * kernels::multiprocessor_count()) {
    train_kernel<kManyThreads><<<groups + rows, kManyThreads, shared, stream>>>(batch, groups);
  } else {
    train_kernel<kFewThreads><<<groups + rows, kFewThreads, shared, stream>>>(batch, groups);
  }
  kernels::check_launch();
  if (groups == 0) return;
  mix_kernel<<<dim3(groups, (group + 1) / 2), kManyThreads, 0, stream>>>(batch);
  kernels::check_launch();
}

void make_batch(const EvalBatch& batch, kernels::Stream stream) {
  if (batch.rows == 0) return;
  check_sides(batch.set, batch.recipe);
  eval_kernel<<<static_cast<unsigned>(batch.rows), kFewThreads, 0, stream>>>(batch);
  kernels::check_launch();
}

}  // namespace ablate::augment
