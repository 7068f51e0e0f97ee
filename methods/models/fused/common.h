#pragma once

#include "methods/kernels/bfloat16.h"
#include "methods/models/fused/context.h"

namespace ablate::fused {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline kernels::Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

/// The data of a bfloat16 tensor as kernels take it; null for an undefined one.
inline kernels::bfloat16* half_data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<kernels::bfloat16*>(tensor.data_ptr()) : nullptr;
}
inline float* float_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}
inline std::int32_t* int_data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<std::int32_t>() : nullptr;
}
inline at::Tensor optional_tensor(const std::optional<at::Tensor>& tensor) {
  return tensor.value_or(at::Tensor());
}
/// Undefined tensors cannot be handed to a Function as they are.
inline std::optional<at::Tensor> to_optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

/// Scratch memory of a kernel, from the allocator of the current stream (or captured graph).
inline at::Tensor workspace(std::size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(bytes)}, like.options().dtype(at::kByte));
}

// The context travels through the tape as a number.
inline std::int64_t to_number(FusedContext& context) {
  return reinterpret_cast<std::int64_t>(&context);
}
inline FusedContext& to_context(const c10::IValue& value) {
  return *reinterpret_cast<FusedContext*>(value.toInt());
}

}  // namespace ablate::fused
