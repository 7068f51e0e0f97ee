#pragma once

#include <string_view>

#include "methods/models/gain_mask.h"
#include "methods/models/slots.h"

namespace ablate {

/// Uniform numbers, (rows, count) double on the device of `like`, each in (0, 1): row b belongs to
/// the sample at position first_position + b of the global batch, and a number is a function of
/// (state.seed, `module`, step, position, column), whatever ranks and micro-batches there are. It
/// is that of RandomStream(seed, Purpose::Method, hash64(module), step) at 4 ceil(count / 4)
/// position + column, in the middle of its interval. Tensor operations alone; can be captured.
/// Throws Error on CUDA when state.device_step is undefined: a captured draw would repeat.
at::Tensor uniform_numbers(const ForwardState& state, std::string_view module, std::int64_t rows,
                           std::int64_t count, const at::Tensor& like);

/// The same for passes without training: one row, a function of `module` and column alone, so that
/// how images are cut into batches does not matter.
at::Tensor fixed_numbers(std::string_view module, std::int64_t count, const at::Tensor& like);

/// 1 with that probability, else 0, in the type of x (B, N, C) and broadcast to it.
/// `probability`: () double, where x is.
at::Tensor draw_mask(GainMask mask, const at::Tensor& probability, const at::Tensor& x,
                     std::string_view module, const ForwardState& state);

}  // namespace ablate
