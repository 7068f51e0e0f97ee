#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/method.h"
#include "runner/core/run_spec.h"
#include "runner/measure/mac_counter.h"

namespace ablate::test {

/// A TrainContext without a trainer: the test sets position and data, and reads what was reported.
class MethodContext final : public TrainContext {
 public:
  explicit MethodContext(Model& model) : surgeon_(model), self_(make_self_communicator()) {}
  MethodContext(Model& model, Communicator& communicator)
      : surgeon_(model), communicator_(&communicator) {}

  Surgeon& surgeon() override { return surgeon_; }
  Communicator& communicator() override { return self_ ? *self_ : *communicator_; }
  std::int64_t step() const override { return now; }
  std::int64_t steps_per_epoch() const override { return per_epoch; }
  std::int64_t epochs() const override { return length; }
  std::uint64_t seed() const override { return 0; }
  void visit(DecisionSplit split, std::int64_t samples, const Visitor& visitor) override {
    const at::NoGradGuard no_grad;
    visited.emplace_back(split, samples);
    for (const auto& [images, weights] : batches) visitor(images, weights);
  }
  /// The labels are 0, 1, .. below `classes`, over and over; so are those of a dense set's pixels.
  void visit_labelled(DecisionSplit split, std::int64_t samples,
                      const LabelledVisitor& visitor) override {
    visit(split, samples, [&](const at::Tensor& images, const at::Tensor& weights) {
      const std::int64_t pixels = dense ? images.size(2) * images.size(3) : 1;
      const at::Tensor labels = at::arange(images.size(0) * pixels, at::kLong).remainder(classes);
      visitor(images, dense ? labels.view({-1, images.size(2), images.size(3)}) : labels, weights);
    });
  }
  std::int64_t macs() override { return measure_cost(surgeon_.model()).macs; }
  void metric(std::string_view name, double value) override {
    metrics[std::string(name)].push_back(value);
  }
  void event(std::string_view kind, const nlohmann::json& body) override {
    events.emplace_back(kind, body);
  }

  std::int64_t now = 0, per_epoch = 1, length = 0;
  std::int64_t classes = 4;
  bool dense = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> batches;  ///< images, weights
  std::vector<std::pair<DecisionSplit, std::int64_t>> visited;
  std::map<std::string, std::vector<double>> metrics;
  std::vector<std::pair<std::string, nlohmann::json>> events;

 private:
  Surgeon surgeon_;
  std::unique_ptr<Communicator> self_;
  Communicator* communicator_ = nullptr;
};

/// A method from the TOML text of its table (name included), resolved as a run spec holds it.
inline Component method_component(std::string_view toml) {
  Value table = parse_toml(toml, "test");
  const std::string name = table.find("name")->as_string();
  table.as_table().erase("name");
  const MethodInfo& info = Registry<MethodInfo>::get(name);
  Params params(table, "methods." + name);
  info.make(params);
  params.finish();
  return {name, info.semantics, params.resolved()};
}

}  // namespace ablate::test
