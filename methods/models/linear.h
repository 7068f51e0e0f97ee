#pragma once

#include "runner/torch/torch.h"

namespace ablate {

/// y = x W^T + b over the last dimension; weight (out, in), bias (out) or undefined. at::linear
/// defines it; with a bias, where onednn_pays() says so, its three products (output, gradients of
/// input and of weight) run on oneDNN, and differ from at::linear by rounding.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// Whether matrix products in single precision are better done by oneDNN than by MKL, on which
/// at::linear relies: MKL leaves the AVX-512 units of other makers' processors idle, which costs it
/// half of its speed there. A property of the machine, so equal hardware gives equal bits.
bool onednn_pays();

/// The oneDNN path itself, for float32 tensors in main memory.
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace ablate
