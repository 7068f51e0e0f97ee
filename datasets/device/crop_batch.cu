// Compiled without contracted multiply-adds: they would change pixels.
#include "datasets/device/block_team.h"
#include "datasets/device/crop_batch.h"
#include "datasets/device/crop_sample.h"
#include "methods/kernels/cuda_check.h"

namespace ablate::augment {
namespace {

constexpr int kResampling = 256;
constexpr int kAugmenting = 512;
// Blocks that share the resampling of an image, so that few images fill the device, too.
constexpr unsigned kBlocksAnImage = 8;

/// Threads of several blocks that share an image; they are never in step.
struct Blocks {
  ABLATE_HOST_DEVICE int rank() const {
#ifdef __CUDA_ARCH__
    return static_cast<int>(blockIdx.y * kResampling + threadIdx.x);
#else
    return 0;
#endif
  }
  ABLATE_HOST_DEVICE int size() const { return static_cast<int>(kBlocksAnImage) * kResampling; }
};

// Grids (rows of the batch, blocks an image).

__global__ void __launch_bounds__(kResampling) taps_kernel(CropBatch batch) {
  tabulate_filters(Block<kResampling>{}, batch, batch.crops[blockIdx.x]);
}

__global__ void __launch_bounds__(kResampling) rows_kernel(CropBatch batch) {
  resample_rows(Blocks{}, batch, batch.crops[blockIdx.x]);
}

__global__ void __launch_bounds__(kResampling) columns_kernel(CropBatch batch) {
  resample_columns(Blocks{}, batch, blockIdx.x);
}

__global__ void __launch_bounds__(kAugmenting) augment_kernel(CropBatch batch) {
  __shared__ __align__(16) std::uint8_t tables[canvas_table_bytes()];
  __shared__ Room<SampleDraw> draw;
  augment_sample(Block<kAugmenting>{}, batch, blockIdx.x, draw.value(), tables);
}

/// Block: a mixing group.
__global__ void plan_kernel(TrainBatch batch) {
  const std::int64_t first = std::int64_t{blockIdx.x} * batch.mix_group;
  batch.plans[blockIdx.x] = draw_plan(batch, (batch.first_position + first) / batch.mix_group);
}

/// Grid (groups, pairs of a group).
template <typename T>
__global__ void __launch_bounds__(kAugmenting) mix_crops_kernel(TrainBatch batch, T* out) {
  const std::int64_t first = std::int64_t{blockIdx.x} * batch.mix_group;
  mix_rows(Block<kAugmenting>{}, batch, batch.plans[blockIdx.x], first + blockIdx.y,
           first + batch.mix_group - 1 - blockIdx.y, out);
}

/// Block: a row.
__global__ void __launch_bounds__(kAugmenting)
    round_kernel(TrainBatch batch, kernels::bfloat16* out) {
  finish_rows(Block<kAugmenting>{}, batch, blockIdx.x, blockIdx.x, out);
}

template <typename T>
void mix(const TrainBatch& batch, T* out, kernels::Stream stream) {
  const auto rows = static_cast<unsigned>(batch.rows);
  const auto group = static_cast<unsigned>(batch.mix_group);
  plan_kernel<<<rows / group, 1, 0, stream>>>(batch);
  kernels::check_launch();
  mix_crops_kernel<<<dim3(rows / group, (group + 1) / 2), kAugmenting, 0, stream>>>(batch, out);
  kernels::check_launch();
}

}  // namespace

void make_batch(const CropBatch& batch, kernels::Stream stream) {
  const TrainBatch& train = batch.train;
  if (train.rows == 0) return;
  const auto rows = static_cast<unsigned>(train.rows);
  const dim3 shared_out(rows, kBlocksAnImage);
  taps_kernel<<<rows, kResampling, 0, stream>>>(batch);
  kernels::check_launch();
  rows_kernel<<<shared_out, kResampling, 0, stream>>>(batch);
  kernels::check_launch();
  columns_kernel<<<shared_out, kResampling, 0, stream>>>(batch);
  kernels::check_launch();
  augment_kernel<<<rows, kAugmenting, 0, stream>>>(batch);
  kernels::check_launch();
  if (train.mix_group > 0) {
    return batch.half ? mix(train, batch.half, stream) : mix(train, train.images, stream);
  }
  if (!batch.half) return;
  round_kernel<<<rows, kAugmenting, 0, stream>>>(train, batch.half);
  kernels::check_launch();
}

}  // namespace ablate::augment
