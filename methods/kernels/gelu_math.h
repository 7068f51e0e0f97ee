#pragma once

#include <cmath>

#include "methods/kernels/host_device.h"

namespace ablate::kernels {

/// Upper tail of the normal distribution at |x|, and the exponential of its density.
struct NormalTail {
  float probability;  ///< 1 - Phi(|x|)
  float exponential;  ///< exp(-x^2 / 2)
};

/// Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26:
///   1 - erf(u) = (a1 t + ... + a5 t^5) exp(-u^2) + e,  t = 1 / (1 + 0.3275911 u),  |e| <= 1.5e-7
/// at u = |x| / sqrt(2). The polynomial is written in s = 1 - t, which is small where the rounding
/// of t would count most (at t = 1 it would grow by 1.7). In float, with the approximate reciprocal
/// and exponential of the device, the error of the probability stays below 2e-7. One exponential
/// serves both values. NaN for infinite x.
ABLATE_HOST_DEVICE NormalTail normal_tail(float x) {
  constexpr float kP = 0.231641888F;               // 0.3275911 / sqrt(2)
  constexpr float kMinusHalfLog2E = -0.72134752F;  // exp(-x^2 / 2) = 2^(x^2 * this)
  // Halves of the polynomial's coefficients in s: a tail is half of 1 - erf.
  constexpr float kB0 = 0.4999999995F, kB1 = -1.72224819F, kB2 = 2.9374433075F,
                  kB3 = -3.1114299615F, kB4 = 1.926937559F, kB5 = -0.5307027145F;
  const float scaled = fabsf(x) * kP;
  const float denominator = 1.0F + scaled;
  const float exponent = x * x * kMinusHalfLog2E;
#ifdef __CUDA_ARCH__
  float reciprocal = 0.0F;
  float exponential = 0.0F;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(denominator));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(exponent));
#else
  const float reciprocal = 1.0F / denominator;
  const float exponential = exp2f(exponent);
#endif
  const float s = scaled * reciprocal;
  const float polynomial =
      fmaf(fmaf(fmaf(fmaf(fmaf(kB5, s, kB4), s, kB3), s, kB2), s, kB1), s, kB0);
  return {polynomial * exponential, exponential};
}

/// x Phi(x), as max(x, 0) - |x| (1 - Phi(|x|)).
ABLATE_HOST_DEVICE float gelu_value(float x) {
  return fmaf(-fabsf(x), normal_tail(x).probability, fmaxf(x, 0.0F));
}

/// Phi(x) + x phi(x).
ABLATE_HOST_DEVICE float gelu_slope(float x) {
  constexpr float kInverseSqrtTwoPi = 0.3989422804F;
  const NormalTail tail = normal_tail(x);
  const float cumulative = x > 0.0F ? 1.0F - tail.probability : tail.probability;
  return fmaf(x * kInverseSqrtTwoPi, tail.exponential, cumulative);
}

}  // namespace ablate::kernels
