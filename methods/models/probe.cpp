#include "methods/models/probe.h"

namespace ablate {

namespace {

class EvaluationMode {
 public:
  explicit EvaluationMode(Model& model) : model_(model), was_training_(model.is_training()) {
    model_.eval();
  }
  ~EvaluationMode() { model_.train(was_training_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Model& model_;
  bool was_training_;
};

}  // namespace

at::Tensor probe(Model& model, ForwardState& state) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  const std::int64_t side = model.image_size();
  const auto options = model.parameters().front().options().requires_grad(false);
  // Token merging needs keys that differ.
  const at::Tensor image =
      at::arange(3 * side * side, options).mul(0.37).sin().view({1, 3, side, side});
  return model.forward(image, state);
}

}  // namespace ablate
