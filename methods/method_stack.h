#pragma once

#include <memory>
#include <string>
#include <vector>

#include "methods/method.h"
#include "runner/core/run_spec.h"

namespace ablate {

/// Sorts by phase, then name, so that equal sets of methods have equal identities.
void sort_methods(std::vector<Component>& methods);

/// Checks a set of methods (inherited and own together) against the model and each other before
/// anything is built: every need is offered, nothing conflicts, no method twice, one method a
/// phase where a slot has one seat. Throws SpecError naming both sides; `where` starts the message.
void check_methods(const ModelInfo& model, const std::vector<Component>& methods,
                   std::string_view where);

/// Why two registered methods cannot be in one run: a conflict that one of them declares, a slot
/// with one seat that both want, or no model that has a place for both. Empty when they can.
std::string pair_conflict(const MethodInfo& a, const MethodInfo& b);

/// The methods of one run in order; all that the trainer talks to. "After" hooks (finalize, the
/// end of an epoch) run in reverse order.
class MethodStack {
 public:
  /// Makes every method from its resolved settings.
  explicit MethodStack(const std::vector<Component>& methods);

  /// Applies each method's surgery. Throws Error when a method changed nothing and has nothing left
  /// to do later.
  void apply(TrainContext& context);
  void between_steps(TrainContext& context);
  void before_pass(TrainContext& context, ForwardState& state);
  void after_pass(TrainContext& context, const ForwardState& state);
  at::Tensor in_step(TrainContext& context, at::Tensor loss);
  void on_epoch(TrainContext& context, EpochEdge edge);
  void finalize(Surgeon& surgeon);
  /// Whether a checkpoint taken now would be deployable.
  bool settled() const;

  void before_save(TrainContext& context);
  nlohmann::json save() const;
  void load(const nlohmann::json& state);

 private:
  struct Entry {
    std::string name;
    std::unique_ptr<Method> method;
  };
  std::vector<Entry> entries_;
};

}  // namespace ablate
