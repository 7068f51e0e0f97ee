// Compiled without contracted multiply-adds: they would change pixels.
#include "datasets/device/batches.h"
#include "datasets/device/train_sample.h"
#include "methods/kernels/cuda_check.h"
#include "runner/core/error.h"

namespace ablate::augment {
namespace {

constexpr int kThreads = 256;

/// The threads of a block.
struct Block {
  ABLATE_HOST_DEVICE int rank() const {
#ifdef __CUDA_ARCH__
    return static_cast<int>(threadIdx.x);
#else
    return 0;
#endif
  }
  ABLATE_HOST_DEVICE int size() const { return kThreads; }
  ABLATE_HOST_DEVICE void sync() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
  ABLATE_HOST_DEVICE void add(int* sum, int value) const {
#ifdef __CUDA_ARCH__
    atomicAdd(sum, value);  // of integers: any order gives the same
#endif
  }
  /// One thread a warp, so that roles run beside each other.
  ABLATE_HOST_DEVICE bool leads(int role) const { return rank() == 32 * role; }
};

/// Room for a T whose members have initial values, which shared variables must not have.
template <typename T>
struct Room {
  alignas(T) unsigned char bytes[sizeof(T)];

  __device__ T& value() { return *reinterpret_cast<T*>(bytes); }
};

__global__ void __launch_bounds__(kThreads) train_kernel(TrainBatch batch) {
  extern __shared__ __align__(16) std::uint8_t memory[];
  __shared__ Room<SampleDraw> draw;
  make_train_sample(Block{}, batch, blockIdx.x, draw.value(), canvas_in(memory, batch.recipe.side));
}

/// Grid (groups, pairs of a group).
__global__ void __launch_bounds__(kThreads) mix_kernel(TrainBatch batch) {
  __shared__ Room<MixPlan> plan;
  const std::int64_t first = std::int64_t{blockIdx.x} * batch.mix_group;
  if (threadIdx.x == 0)
    plan.value() = draw_plan(batch, (batch.first_position + first) / batch.mix_group);
  __syncthreads();
  mix_rows(Block{}, batch, plan.value(), first + blockIdx.y,
           first + batch.mix_group - 1 - blockIdx.y);
}

__global__ void __launch_bounds__(kThreads) eval_kernel(EvalBatch batch) {
  make_eval_sample(Block{}, batch, blockIdx.x);
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
  train_kernel<<<rows, kThreads, canvas_bytes(batch.recipe.side), stream>>>(batch);
  kernels::check_launch();
  if (batch.mix_group == 0) return;
  const auto group = static_cast<unsigned>(batch.mix_group);
  mix_kernel<<<dim3(rows / group, (group + 1) / 2), kThreads, 0, stream>>>(batch);
  kernels::check_launch();
}

void make_batch(const EvalBatch& batch, kernels::Stream stream) {
  if (batch.rows == 0) return;
  check_sides(batch.set, batch.recipe);
  eval_kernel<<<static_cast<unsigned>(batch.rows), kThreads, 0, stream>>>(batch);
  kernels::check_launch();
}

}  // namespace ablate::augment
