#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/optimizer.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

constexpr int kUpdateThreads = 256;
constexpr int kStatusThreads = 1024;

/// Sum over the block in a fixed order; thread 0 has it. `scratch` has one double a warp.
__device__ double block_sum_of_doubles(double value, double* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, offset);
  }
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0.0;
  if (threadIdx.x == 0) {
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += scratch[warp];
  }
  return sum;
}

/// One block a chunk.
__global__ void __launch_bounds__(kUpdateThreads)
    sum_of_squares_kernel(FlatUpdate flat, double* squares) {
  __shared__ double scratch[kUpdateThreads / 32];
  const UpdateChunk chunk = flat.chunks[blockIdx.x];
  const float* gradients = flat.gradients + chunk.begin;
  double sum = 0.0;
  const std::int64_t quads = chunk.count / 4;
#pragma unroll 4
  for (std::int64_t quad = threadIdx.x; quad < quads; quad += kUpdateThreads) {
    float values[4];
    load(gradients + 4 * quad, values);
#pragma unroll
    for (const float value : values) {
      sum = fma(static_cast<double>(value), static_cast<double>(value), sum);
    }
  }
  const std::int64_t rest = 4 * quads + threadIdx.x;
  if (rest < chunk.count) {
    const double value = gradients[rest];
    sum = fma(value, value, sum);
  }
  sum = block_sum_of_doubles(sum, scratch);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kStatusThreads)
    status_kernel(const double* squares, FlatUpdate flat, AdamWRule rule) {
  __shared__ double scratch[kStatusThreads / 32];
  double sum = 0.0;
  for (std::int64_t c = threadIdx.x; c < flat.chunk_count; c += kStatusThreads) sum += squares[c];
  sum = block_sum_of_doubles(sum, scratch);
  if (threadIdx.x != 0) return;
  const UpdateScalars scalars = *flat.scalars;
  UpdateStatus* status = flat.status;
  const double norm = scalars.gradient_scale * sqrt(sum);
  status->norm = norm;
  status->clip_factor = scalars.max_norm > 0.0 ? fmin(1.0, scalars.max_norm / (norm + 1e-6)) : 1.0;
  const bool finite = isfinite(norm) && (flat.loss == nullptr || isfinite(*flat.loss));
  status->finite = finite ? 1 : 0;
  status->updates += finite ? 1 : 0;
  const auto update = static_cast<double>(status->updates);
  status->correction1 = 1.0 - pow(rule.beta1, update);
  status->correction2 = sqrt(1.0 - pow(rule.beta2, update));
}

// Each operation rounds on its own, as on the host: no fused multiply-add.
__device__ __forceinline__ float sum_of_products(float a, float b, float c, float d) {
  return __fadd_rn(__fmul_rn(a, b), __fmul_rn(c, d));
}

/// The constants of one chunk in single precision, and the step of one element.
struct AdamWStep {
  float* exp_avg;
  float* exp_avg_sq;
  AdamWRule rule;
  float step_size, shrink, beta1, beta2, rest1, rest2, correction2, eps;

  __device__ __forceinline__ void prepare(const FlatUpdate& flat, const UpdateChunk& chunk) {
    const double lr = flat.scalars->lr * chunk.lr_factor;
    step_size = static_cast<float>(lr / flat.status->correction1);
    shrink = static_cast<float>(__dsub_rn(1.0, __dmul_rn(lr, chunk.weight_decay)));
    beta1 = static_cast<float>(rule.beta1);
    beta2 = static_cast<float>(rule.beta2);
    rest1 = static_cast<float>(1.0 - rule.beta1);
    rest2 = static_cast<float>(1.0 - rule.beta2);
    correction2 = static_cast<float>(flat.status->correction2);
    eps = static_cast<float>(rule.eps);
  }

  template <int V>
  __device__ __forceinline__ void apply(std::int64_t at, const float (&g)[V], float (&p)[V]) const {
    float m[V];
    float v[V];
    load(exp_avg + at, m);
    load(exp_avg_sq + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      m[i] = sum_of_products(beta1, m[i], rest1, g[i]);
      v[i] = sum_of_products(beta2, v[i], __fmul_rn(rest2, g[i]), g[i]);
      const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v[i]), correction2), eps);
      p[i] = __fsub_rn(__fmul_rn(shrink, p[i]), __fdiv_rn(__fmul_rn(step_size, m[i]), root));
    }
    store(exp_avg + at, m);
    store(exp_avg_sq + at, v);
  }
};

struct SgdStep {
  float* velocity;
  SgdRule rule;
  float lr, decay, momentum, direct, through;

  __device__ __forceinline__ void prepare(const FlatUpdate& flat, const UpdateChunk& chunk) {
    lr = static_cast<float>(flat.scalars->lr * chunk.lr_factor);
    decay = static_cast<float>(chunk.weight_decay);
    momentum = static_cast<float>(rule.momentum);
    direct = rule.nesterov ? 1.0F : 0.0F;
    through = rule.nesterov ? momentum : 1.0F;
  }

  template <int V>
  __device__ __forceinline__ void apply(std::int64_t at, const float (&scaled)[V],
                                        float (&p)[V]) const {
    float v[V] = {};
    if (velocity != nullptr) load(velocity + at, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float g = __fadd_rn(scaled[i], __fmul_rn(decay, p[i]));
      float direction = g;
      if (velocity != nullptr) {
        v[i] = __fadd_rn(__fmul_rn(momentum, v[i]), g);
        direction = sum_of_products(direct, g, through, v[i]);
      }
      p[i] = __fsub_rn(p[i], __fmul_rn(lr, direction));
    }
    if (velocity != nullptr) store(velocity + at, v);
  }
};

/// What all rules share, in single precision.
struct CommonTerms {
  float scale, low, high, keep, take;
  bool bounded, averages;
};

__device__ __forceinline__ CommonTerms common_terms(const FlatUpdate& flat,
                                                    const UpdateChunk& chunk) {
  const double decay = flat.scalars->ema_decay;
  return {.scale = static_cast<float>(flat.scalars->gradient_scale * flat.status->clip_factor),
          .low = static_cast<float>(chunk.clamp_low),
          .high = static_cast<float>(chunk.clamp_high),
          .keep = static_cast<float>(decay),
          .take = static_cast<float>(1.0 - decay),
          .bounded = isfinite(chunk.clamp_low) || isfinite(chunk.clamp_high),
          .averages = flat.ema != nullptr && decay > 0.0};
}

/// Scale, step, bounds, average and copy of V elements.
template <int V, typename Step>
__device__ __forceinline__ void update_elements(const FlatUpdate& flat, const CommonTerms& terms,
                                                const Step& step, std::int64_t at) {
  float gradients[V];
  float parameters[V];
  float ema[V] = {};
  load(flat.gradients + at, gradients);
  load(flat.parameters + at, parameters);
  if (terms.averages) load(flat.ema + at, ema);
#pragma unroll
  for (float& gradient : gradients) gradient = __fmul_rn(terms.scale, gradient);
  step.template apply<V>(at, gradients, parameters);
  if (terms.bounded) {
#pragma unroll
    for (float& value : parameters) {  // NaN stays NaN
      if (value < terms.low) value = terms.low;
      if (value > terms.high) value = terms.high;
    }
  }
  store(flat.parameters + at, parameters);
  if (flat.working != nullptr) store(flat.working + at, parameters);
  if (!terms.averages) return;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    ema[i] = sum_of_products(terms.keep, ema[i], terms.take, parameters[i]);
  }
  store(flat.ema + at, ema);
}

/// One block a chunk.
template <typename Step>
__global__ void __launch_bounds__(kUpdateThreads, 4) update_kernel(FlatUpdate flat, Step step) {
  if (flat.status->finite == 0) return;
  const UpdateChunk chunk = flat.chunks[blockIdx.x];
  step.prepare(flat, chunk);
  const CommonTerms terms = common_terms(flat, chunk);
  const std::int64_t quads = chunk.count / 4;
#pragma unroll 1
  for (std::int64_t quad = threadIdx.x; quad < quads; quad += kUpdateThreads) {
    update_elements<4>(flat, terms, step, chunk.begin + 4 * quad);
  }
  const std::int64_t rest = 4 * quads + threadIdx.x;
  if (rest < chunk.count) update_elements<1>(flat, terms, step, chunk.begin + rest);
}

void check_update(const FlatUpdate& flat) {
  ABLATE_CHECK(all_aligned(16, flat.gradients, flat.parameters, flat.ema),
               "optimizer: gradients, parameters and ema must be aligned to 16 bytes");
  ABLATE_CHECK(all_aligned(8, flat.working), "optimizer: working must be aligned to 8 bytes");
  ABLATE_CHECK(flat.scalars != nullptr && flat.status != nullptr,
               "optimizer: scalars and status must be given");
}

template <typename Step>
void launch_update(const FlatUpdate& flat, const Step& step, Stream stream) {
  check_update(flat);
  if (flat.chunk_count == 0) return;
  update_kernel<<<static_cast<unsigned>(flat.chunk_count), kUpdateThreads, 0, stream>>>(flat, step);
  check_launch();
}

}  // namespace

std::size_t begin_update_workspace_bytes(std::int64_t chunk_count) {
  return static_cast<std::size_t>(chunk_count) * sizeof(double);
}

void begin_update(const FlatUpdate& flat, const AdamWRule& rule, void* workspace, Stream stream) {
  check_update(flat);
  auto* squares = static_cast<double*>(workspace);
  if (flat.chunk_count > 0) {
    sum_of_squares_kernel<<<static_cast<unsigned>(flat.chunk_count), kUpdateThreads, 0, stream>>>(
        flat, squares);
    check_launch();
  }
  status_kernel<<<1, kStatusThreads, 0, stream>>>(squares, flat, rule);
  check_launch();
}

void adamw_update(const FlatUpdate& flat, const AdamWRule& rule, float* exp_avg, float* exp_avg_sq,
                  Stream stream) {
  ABLATE_CHECK(exp_avg != nullptr && exp_avg_sq != nullptr && all_aligned(16, exp_avg, exp_avg_sq),
               "adamw: the moments must be given, aligned to 16 bytes");
  launch_update(flat, AdamWStep{.exp_avg = exp_avg, .exp_avg_sq = exp_avg_sq, .rule = rule},
                stream);
}

void sgd_update(const FlatUpdate& flat, const SgdRule& rule, float* velocity, Stream stream) {
  ABLATE_CHECK((velocity != nullptr) == (rule.momentum > 0.0) && all_aligned(16, velocity),
               "sgd: velocity goes with a momentum, aligned to 16 bytes");
  launch_update(flat, SgdStep{.velocity = velocity, .rule = rule}, stream);
}

}  // namespace ablate::kernels
