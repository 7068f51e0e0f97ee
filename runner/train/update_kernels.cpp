#include "runner/train/update_kernels.h"

#include <algorithm>
#include <cmath>

namespace ablate {
namespace {

/// Bounds and moving average of values that are still in cache.
template <typename T>
void finish_update(const UpdateSpan<T>& span) {
  T* __restrict p = span.parameters;
  if (std::isfinite(span.clamp_low) || std::isfinite(span.clamp_high)) {
    const T low = static_cast<T>(span.clamp_low);
    const T high = static_cast<T>(span.clamp_high);
    for (std::int64_t i = 0; i < span.count; ++i) p[i] = std::min(std::max(p[i], low), high);
  }
  if (span.ema == nullptr) return;
  T* __restrict ema = span.ema;
  const T keep = static_cast<T>(span.ema_decay);
  const T take = static_cast<T>(1.0 - span.ema_decay);
  for (std::int64_t i = 0; i < span.count; ++i) ema[i] = keep * ema[i] + take * p[i];
}

}  // namespace

template <typename T>
void adamw_update(const UpdateSpan<T>& span, const AdamWMoments<T>& moments) {
  T* __restrict p = span.parameters;
  const T* __restrict gradients = span.gradients;
  T* __restrict m = moments.exp_avg;
  T* __restrict v = moments.exp_avg_sq;
  const auto t = static_cast<double>(moments.update);
  const double correction1 = 1.0 - std::pow(moments.beta1, t);
  const T correction2 = static_cast<T>(std::sqrt(1.0 - std::pow(moments.beta2, t)));
  const T step_size = static_cast<T>(span.lr / correction1);
  const T shrink = static_cast<T>(1.0 - span.lr * span.weight_decay);
  const T beta1 = static_cast<T>(moments.beta1);
  const T beta2 = static_cast<T>(moments.beta2);
  const T rest1 = static_cast<T>(1.0 - moments.beta1);
  const T rest2 = static_cast<T>(1.0 - moments.beta2);
  const T eps = static_cast<T>(moments.eps);
  const T scale = static_cast<T>(span.gradient_scale);
  for (std::int64_t i = 0; i < span.count; ++i) {
    const T g = scale * gradients[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * g * g;
    p[i] = shrink * p[i] - step_size * m[i] / (std::sqrt(v[i]) / correction2 + eps);
  }
  finish_update(span);
}

template <typename T>
void sgd_update(const UpdateSpan<T>& span, const SgdMomentum<T>& momentum) {
  T* __restrict p = span.parameters;
  const T* __restrict gradients = span.gradients;
  T* __restrict v = momentum.velocity;
  const T lr = static_cast<T>(span.lr);
  const T decay = static_cast<T>(span.weight_decay);
  const T scale = static_cast<T>(span.gradient_scale);
  const T mu = static_cast<T>(momentum.momentum);
  if (v == nullptr) {
    for (std::int64_t i = 0; i < span.count; ++i)
      p[i] -= lr * (scale * gradients[i] + decay * p[i]);
  } else {
    const T direct = momentum.nesterov ? T(1) : T(0);
    const T through = momentum.nesterov ? mu : T(1);
    for (std::int64_t i = 0; i < span.count; ++i) {
      const T g = scale * gradients[i] + decay * p[i];
      v[i] = mu * v[i] + g;
      p[i] -= lr * (direct * g + through * v[i]);
    }
  }
  finish_update(span);
}

template <typename T>
double sum_of_squares(const T* values, std::int64_t count) {
  constexpr int kLanes = 8;  // independent sums, so that the loop can be vectorised as written
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(values[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template void adamw_update(const UpdateSpan<float>&, const AdamWMoments<float>&);
template void adamw_update(const UpdateSpan<double>&, const AdamWMoments<double>&);
template void sgd_update(const UpdateSpan<float>&, const SgdMomentum<float>&);
template void sgd_update(const UpdateSpan<double>&, const SgdMomentum<double>&);
template double sum_of_squares(const float*, std::int64_t);
template double sum_of_squares(const double*, std::int64_t);

}  // namespace ablate
