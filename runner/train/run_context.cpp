#include "runner/train/run_context.h"

#include <nlohmann/json.hpp>

#include "runner/measure/mac_counter.h"

namespace ablate {

void RunContext::visit(DecisionSplit split, std::int64_t samples, const Visitor& visitor) {
  visit_labelled(split, samples,
                 [&](const at::Tensor& images, const at::Tensor&, const at::Tensor& weights) {
                   visitor(images, weights);
                 });
}

void RunContext::visit_labelled(DecisionSplit split, std::int64_t samples,
                                const LabelledVisitor& visitor) {
  const at::NoGradGuard no_grad;
  Model& model = surgeon_.model();
  const bool was_training = model.is_training();
  model.eval();
  visit_data_(split, samples, visitor);
  model.train(was_training);
}

std::int64_t RunContext::macs() { return measure_cost(surgeon_.model()).macs; }

void RunContext::metric(std::string_view name, double value) {
  if (log_) log_->number(std::string(name), step_, value);
}

void RunContext::event(std::string_view kind, const nlohmann::json& body) {
  if (log_) log_->event(step_, std::string(kind), body);
}

}  // namespace ablate
