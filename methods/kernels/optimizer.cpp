#include "methods/kernels/optimizer.h"

#include <algorithm>
#include <cmath>

namespace ablate::kernels::reference {
namespace {

/// Calls step(element, scaled gradient) for all elements of a chunk, then bounds, average and copy.
template <typename Step>
void update_chunk(const FlatUpdate& flat, const UpdateChunk& chunk, const Step& step) {
  const auto scale = static_cast<float>(flat.scalars->gradient_scale * flat.status->clip_factor);
  const auto keep = static_cast<float>(flat.scalars->ema_decay);
  const auto take = static_cast<float>(1.0 - flat.scalars->ema_decay);
  for (std::int64_t i = chunk.begin; i < chunk.begin + chunk.count; ++i) {
    step(i, scale * flat.gradients[i]);
    float& p = flat.parameters[i];
    if (std::isfinite(chunk.clamp_low) || std::isfinite(chunk.clamp_high)) {
      p = std::min(std::max(p, static_cast<float>(chunk.clamp_low)),
                   static_cast<float>(chunk.clamp_high));
    }
    if (flat.ema != nullptr && flat.scalars->ema_decay > 0.0) {
      flat.ema[i] = keep * flat.ema[i] + take * p;
    }
    if (flat.working != nullptr) flat.working[i] = from_float<bfloat16>(p);
  }
}

}  // namespace

void begin_update(const FlatUpdate& flat, const AdamWRule& rule) {
  const UpdateScalars& scalars = *flat.scalars;
  double squares = 0.0;
  for (std::int64_t c = 0; c < flat.chunk_count; ++c) {
    const float* gradients = flat.gradients + flat.chunks[c].begin;
    for (std::int64_t i = 0; i < flat.chunks[c].count; ++i) {
      squares += static_cast<double>(gradients[i]) * static_cast<double>(gradients[i]);
    }
  }
  UpdateStatus& status = *flat.status;
  status.norm = scalars.gradient_scale * std::sqrt(squares);
  const bool finite =
      std::isfinite(status.norm) && (flat.loss == nullptr || std::isfinite(*flat.loss));
  status.finite = finite ? 1 : 0;
  status.updates += status.finite;
  const auto update = static_cast<double>(status.updates);
  status.clip_factor =
      scalars.max_norm > 0.0 ? std::min(1.0, scalars.max_norm / (status.norm + 1e-6)) : 1.0;
  status.correction1 = 1.0 - std::pow(rule.beta1, update);
  status.correction2 = std::sqrt(1.0 - std::pow(rule.beta2, update));
}

void adamw_update(const FlatUpdate& flat, const AdamWRule& rule, float* exp_avg,
                  float* exp_avg_sq) {
  if (flat.status->finite == 0) return;
  const auto beta1 = static_cast<float>(rule.beta1), beta2 = static_cast<float>(rule.beta2);
  const auto rest1 = static_cast<float>(1.0 - rule.beta1);
  const auto rest2 = static_cast<float>(1.0 - rule.beta2);
  const auto correction2 = static_cast<float>(flat.status->correction2);
  const auto eps = static_cast<float>(rule.eps);
  for (std::int64_t c = 0; c < flat.chunk_count; ++c) {
    const UpdateChunk& chunk = flat.chunks[c];
    const double lr = flat.scalars->lr * chunk.lr_factor;
    const auto step_size = static_cast<float>(lr / flat.status->correction1);
    const auto shrink = static_cast<float>(1.0 - lr * chunk.weight_decay);
    update_chunk(flat, chunk, [&](std::int64_t i, float g) {
      exp_avg[i] = beta1 * exp_avg[i] + rest1 * g;
      exp_avg_sq[i] = beta2 * exp_avg_sq[i] + rest2 * g * g;
      const float root = std::sqrt(exp_avg_sq[i]) / correction2 + eps;
      flat.parameters[i] = shrink * flat.parameters[i] - step_size * exp_avg[i] / root;
    });
  }
}

void sgd_update(const FlatUpdate& flat, const SgdRule& rule, float* velocity) {
  if (flat.status->finite == 0) return;
  const auto momentum = static_cast<float>(rule.momentum);
  const float direct = rule.nesterov ? 1.0F : 0.0F;
  const float through = rule.nesterov ? momentum : 1.0F;
  for (std::int64_t c = 0; c < flat.chunk_count; ++c) {
    const UpdateChunk& chunk = flat.chunks[c];
    const auto lr = static_cast<float>(flat.scalars->lr * chunk.lr_factor);
    const auto decay = static_cast<float>(chunk.weight_decay);
    update_chunk(flat, chunk, [&](std::int64_t i, float scaled) {
      float& p = flat.parameters[i];
      const float g = scaled + decay * p;
      if (velocity == nullptr) {
        p -= lr * g;
      } else {
        velocity[i] = momentum * velocity[i] + g;
        p -= lr * (direct * g + through * velocity[i]);
      }
    });
  }
}

}  // namespace ablate::kernels::reference
