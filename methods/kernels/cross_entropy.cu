#include "methods/kernels/cross_entropy.h"
#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

constexpr int kMeanThreads = 1024;

/// A target class of a row and its share of the one-hot part.
struct TargetClass {
  std::int64_t label;
  float share;
};

template <typename T>
__device__ __forceinline__ float logit_at(const T* logits, std::int64_t k) {
  float value[1];
  load(logits + k, value);
  return value[0];
}

/// One block a row; the row is read from memory once and from the cache twice more.
template <typename T>
__global__ void cross_entropy_kernel(CrossEntropy<T> arguments) {
  __shared__ float scratch[32];
  const std::int64_t row = blockIdx.x;
  const std::int64_t classes = arguments.classes;
  const T* logits = arguments.logits + row * arguments.logits_stride;
  const bool mixed = arguments.other_labels != nullptr;
  const float mix = mixed ? arguments.mix[row] : 1.0F;
  const float hard = 1.0F - arguments.label_smoothing;
  const TargetClass first{arguments.labels[row], mix * hard};
  const TargetClass second{mixed ? arguments.other_labels[row] : first.label, (1.0F - mix) * hard};

  float largest = -INFINITY;
  for (std::int64_t k = threadIdx.x; k < classes; k += blockDim.x) {
    largest = fmaxf(largest, logit_at(logits, k));
  }
  largest = block_max(largest, scratch);
  float exponentials = 0.0F;
  float scores = 0.0F;  // relative to the largest one
  for (std::int64_t k = threadIdx.x; k < classes; k += blockDim.x) {
    const float score = logit_at(logits, k) - largest;
    exponentials += expf(score);
    scores += score;
  }
  exponentials = block_sum(exponentials, scratch);
  scores = block_sum(scores, scratch);
  const bool known =
      first.label >= 0 && first.label < classes && second.label >= 0 && second.label < classes;
  const float smooth = arguments.label_smoothing / static_cast<float>(classes);
  float loss = nanf("");
  if (known) {
    loss = logf(exponentials) - smooth * scores -
           first.share * (logit_at(logits, first.label) - largest) -
           second.share * (logit_at(logits, second.label) - largest);
  }
  if (threadIdx.x == 0) arguments.losses[row] = loss;
  if (arguments.d_logits == nullptr) return;
  __syncthreads();  // d_logits may be logits: all have read the labels' ones
  const float scale = known ? arguments.loss_scale / static_cast<float>(arguments.rows) : nanf("");
  const float inverse = 1.0F / exponentials;
  T* d_logits = arguments.d_logits + row * arguments.d_logits_stride;
  for (std::int64_t k = threadIdx.x; k < classes; k += blockDim.x) {
    float target = smooth;
    if (k == first.label) target += first.share;
    if (k == second.label) target += second.share;
    const float probability = expf(logit_at(logits, k) - largest) * inverse;
    const float gradient[1] = {(probability - target) * scale};
    store(d_logits + k, gradient);
  }
}

__global__ void __launch_bounds__(kMeanThreads)
    mean_loss_kernel(const float* losses, std::int64_t rows, float* mean) {
  __shared__ float scratch[kMeanThreads / 32];
  float sum = 0.0F;
  for (std::int64_t row = threadIdx.x; row < rows; row += kMeanThreads) sum += losses[row];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *mean = sum / static_cast<float>(rows);
}

unsigned row_threads(std::int64_t classes) {
  if (classes <= 256) return 32;
  return classes <= 2048 ? 128 : 512;
}

}  // namespace

template <typename T>
void cross_entropy(const CrossEntropy<T>& given, Stream stream) {
  CrossEntropy<T> arguments = given;
  if (arguments.logits_stride == 0) arguments.logits_stride = arguments.classes;
  if (arguments.d_logits_stride == 0) arguments.d_logits_stride = arguments.classes;
  ABLATE_CHECK(arguments.classes >= 1, "cross_entropy needs classes");
  ABLATE_CHECK(arguments.logits_stride >= arguments.classes &&
                   arguments.d_logits_stride >= arguments.classes,
               "cross_entropy: rows of ", arguments.classes, " classes overlap");
  ABLATE_CHECK((arguments.other_labels == nullptr) == (arguments.mix == nullptr),
               "cross_entropy: other_labels and mix come together");
  ABLATE_CHECK(arguments.losses != nullptr, "cross_entropy: losses must be given");
  if (arguments.rows == 0) return;
  cross_entropy_kernel<<<static_cast<unsigned>(arguments.rows), row_threads(arguments.classes), 0,
                         stream>>>(arguments);
  check_launch();
  if (arguments.mean_loss == nullptr) return;
  mean_loss_kernel<<<1, kMeanThreads, 0, stream>>>(arguments.losses, arguments.rows,
                                                   arguments.mean_loss);
  check_launch();
}

template void cross_entropy(const CrossEntropy<float>&, Stream);
template void cross_entropy(const CrossEntropy<bfloat16>&, Stream);

}  // namespace ablate::kernels
