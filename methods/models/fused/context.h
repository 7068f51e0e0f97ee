#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "methods/kernels/gemm.h"
#include "runner/torch/torch.h"

namespace ablate {

class Model;

/// One parameter as fused operations use it.
struct FusedParameter {
  at::Tensor working;   ///< bfloat16 copy, in the parameter's shape
  at::Tensor gradient;  ///< float, added to by backward passes; undefined without training
};

/// What fused operations need of one run on one device: bfloat16 copies of the weights, places for
/// their gradients, matrix products, and the stream-wise numbers of the residual joins. Passed to a
/// forward pass through ForwardState. One thread at a time.
///
/// Operations are autograd functions that take the parameters as inputs and give autograd no
/// gradient for them: they have added it where it belongs. Hooks of the parameters still fire when
/// all functions that took them are through.
class FusedContext {
 public:
  /// `device` must be the current one.
  explicit FusedContext(at::Device device);
  ~FusedContext();
  FusedContext(const FusedContext&) = delete;
  FusedContext& operator=(const FusedContext&) = delete;

  /// For evaluation alone: copies of its own of all parameters of the model, made now.
  void bind_for_inference(Model& model);
  /// Copies the present values once more, to the same places.
  void refresh_for_inference();
  /// Forgets all parameters.
  void clear();
  /// For training: `working` and `gradient` are views of the arena's buffers. Throws BugError when
  /// they do not fit.
  void bind(const at::Tensor& parameter, FusedParameter places);

  /// Throws BugError for a parameter that was not bound.
  FusedParameter& at(const at::Tensor& parameter);

  kernels::Gemm& gemm() { return gemm_; }
  at::Device device() const { return device_; }

 private:
  at::Device device_;
  kernels::Gemm gemm_;
  std::unordered_map<const c10::TensorImpl*, FusedParameter> parameters_;
  std::vector<at::Tensor> inference_parameters_;
};

}  // namespace ablate
