#include "methods/models/fused/context.h"

#include "methods/models/model.h"
#include "runner/core/error.h"

namespace ablate {

FusedContext::FusedContext(at::Device device) : device_(device) {}

FusedContext::~FusedContext() = default;

void FusedContext::bind_for_inference(Model& model) {
  clear();
  inference_parameters_ = model.parameters();
  for (const at::Tensor& parameter : inference_parameters_) {
    bind(parameter, {.working = parameter.detach().to(at::kBFloat16), .gradient = {}});
  }
}

void FusedContext::refresh_for_inference() {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : inference_parameters_) at(parameter).working.copy_(parameter);
}

void FusedContext::clear() {
  parameters_.clear();
  inference_parameters_.clear();
}

void FusedContext::bind(const at::Tensor& parameter, FusedParameter places) {
  ABLATE_CHECK(parameter.device() == device_ && parameter.scalar_type() == at::kFloat,
               "fused operations take float parameters on ", device_.str());
  ABLATE_CHECK(places.working.sizes() == parameter.sizes() &&
                   places.working.scalar_type() == at::kBFloat16 && places.working.is_contiguous(),
               "working copy of another shape or type");
  parameters_[parameter.unsafeGetTensorImpl()] = std::move(places);
}

FusedParameter& FusedContext::at(const at::Tensor& parameter) {
  const auto found = parameters_.find(parameter.unsafeGetTensorImpl());
  ABLATE_CHECK(found != parameters_.end(), "a parameter of ", parameter.sizes(),
               " is not bound to the fused context");
  return found->second;
}

}  // namespace ablate
