#pragma once

#include <cstdint>

namespace ablate {

// Element-wise loops of the optimizers over a piece of the flat buffers. Free of LibTorch, because
// the file is compiled with its own flags (vectorised, no contraction: equal bits on every x86-64
// machine). T is float or double; g below is gradient_scale * gradients[i].

/// What every update rule shares.
template <typename T>
struct UpdateSpan {
  T* parameters;
  const T* gradients;
  T* ema;  ///< null: none
  std::int64_t count;
  // Doubles: 1 - 0.99996 keeps three digits in single precision.
  double gradient_scale;
  double lr;
  double weight_decay;
  double clamp_low, clamp_high;  ///< infinite: none
  double ema_decay;
};

/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, as torch computes it:
///   p <- p (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
///   p <- p - (lr / (1 - b1^t)) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
template <typename T>
struct AdamWMoments {
  T* exp_avg;
  T* exp_avg_sq;
  double beta1, beta2, eps;
  std::int64_t update;  ///< t, from 1
};

template <typename T>
void adamw_update(const UpdateSpan<T>& span, const AdamWMoments<T>& moments);

/// torch's form: g <- g + wd p;  v <- mu v + g;  p <- p - lr (nesterov ? g + mu v : v).
/// `velocity` is null when mu = 0.
template <typename T>
struct SgdMomentum {
  T* velocity;
  double momentum;
  bool nesterov;
};

template <typename T>
void sgd_update(const UpdateSpan<T>& span, const SgdMomentum<T>& momentum);

/// Sum of squares in double, in an order that depends on `count` alone.
template <typename T>
double sum_of_squares(const T* values, std::int64_t count);

}  // namespace ablate
