#pragma once

#include <array>
#include <string_view>

namespace ablate {

/// What work on a device is for, as far as its name tells.
enum class KernelClass {
  Gemm,  ///< with split-K reductions and the column sums of bias gradients
  Attention,
  Norm,  ///< normalisation, joins of the residual stream, drop-path
  Activation,
  Convolution,  ///< with the patch embedding, which is one
  TokenMerging,
  Communication,
  Optimizer,
  Data,         ///< augmentation and copies from the host
  Elementwise,  ///< ATen's pointwise operations, reductions and copies
  Other,
};

inline constexpr std::array kKernelClasses = {
    KernelClass::Gemm,          KernelClass::Attention,   KernelClass::Norm,
    KernelClass::Activation,    KernelClass::Convolution, KernelClass::TokenMerging,
    KernelClass::Communication, KernelClass::Optimizer,   KernelClass::Data,
    KernelClass::Elementwise,   KernelClass::Other};

/// "gemm", "token_merging": as in names of numbers.
std::string_view name_of(KernelClass kernel_class);

/// Of a demangled kernel name, or of what the profiler calls a copy.
KernelClass classify_kernel(std::string_view name);

}  // namespace ablate
