#include "methods/method_stack.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

const MethodInfo& info(const Component& component) {
  return Registry<MethodInfo>::get(component.name);
}

/// Phases whose slot has a single seat in each block or stage.
bool exclusive(Phase phase) {
  return phase == Phase::LayerAttention || phase == Phase::TokenReduction;
}

void check_needs(const ModelInfo& model, const MethodInfo& method, std::string_view where) {
  for (const Slot slot : method.needs) {
    if (std::ranges::find(model.offers, slot) == model.offers.end()) {
      throw SpecError(cat(where, ": method \"", method.name, "\" needs the slot \"",
                          slot_name(slot), "\", which model \"", model.name, "\" does not offer",
                          model.withheld.empty() ? "" : ": ", model.withheld));
    }
  }
}

/// What the two say of each other, whatever the model.
std::string declared_conflict(const MethodInfo& a, const MethodInfo& b) {
  if (b.name < a.name) return declared_conflict(b, a);  // one answer, whoever asks
  for (const auto& [first, second] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
    if (std::ranges::find(first->conflicts, second->name) != first->conflicts.end()) {
      return cat("cannot be combined: ", first->conflict_reason);
    }
  }
  if (a.phase == b.phase && exclusive(a.phase)) return "want the same slot; use one of them";
  return {};
}

void check_pair(const MethodInfo& a, const MethodInfo& b, std::string_view where) {
  if (a.name == b.name) {
    throw SpecError(cat(where, ": method \"", a.name,
                        "\" is applied twice (here and by a parent run, or twice here)"));
  }
  const std::string conflict = declared_conflict(a, b);
  if (conflict.empty()) return;
  throw SpecError(cat(where, ": methods \"", a.name, "\" and \"", b.name, "\" ", conflict));
}

bool offers_all(const ModelInfo& model, const MethodInfo& method) {
  return std::ranges::all_of(method.needs, [&](Slot slot) {
    return std::ranges::find(model.offers, slot) != model.offers.end();
  });
}

}  // namespace

std::string pair_conflict(const MethodInfo& a, const MethodInfo& b) {
  const std::string conflict = declared_conflict(a, b);
  if (!conflict.empty()) return conflict;
  for (const std::string& name : Registry<ModelInfo>::names()) {
    const auto& model = Registry<ModelInfo>::get(name);
    if (offers_all(model, a) && offers_all(model, b)) return {};
  }
  return "have no model with a place for both";
}

void sort_methods(std::vector<Component>& methods) {
  std::ranges::sort(methods, [](const Component& a, const Component& b) {
    return std::pair(info(a).phase, a.name) < std::pair(info(b).phase, b.name);
  });
}

void check_methods(const ModelInfo& model, const std::vector<Component>& methods,
                   std::string_view where) {
  for (std::size_t i = 0; i < methods.size(); ++i) {
    check_needs(model, info(methods[i]), where);
    for (std::size_t j = 0; j < i; ++j) check_pair(info(methods[j]), info(methods[i]), where);
  }
}

MethodStack::MethodStack(const std::vector<Component>& methods) {
  for (const Component& component : methods) {
    Params params(component.params, cat("methods.", component.name));
    auto method = info(component).make(params);
    params.finish();
    entries_.push_back({component.name, std::move(method)});
  }
}

void MethodStack::apply(TrainContext& context) {
  for (Entry& entry : entries_) {
    const Surgeon& surgeon = context.surgeon();
    const std::size_t before = surgeon.edits().size();
    entry.method->apply(context);
    if (surgeon.edits().size() == before && entry.method->settled()) {
      throw Error(cat("method \"", entry.name,
                      "\" changed nothing: a row of a table would claim what did not happen"));
    }
  }
}

void MethodStack::between_steps(TrainContext& context) {
  for (Entry& entry : entries_) entry.method->between_steps(context);
}

void MethodStack::before_pass(TrainContext& context, ForwardState& state) {
  for (Entry& entry : entries_) entry.method->before_pass(context, state);
}

void MethodStack::after_pass(TrainContext& context, const ForwardState& state) {
  for (Entry& entry : entries_) entry.method->after_pass(context, state);
}

at::Tensor MethodStack::in_step(TrainContext& context, at::Tensor loss) {
  for (Entry& entry : entries_) loss = entry.method->in_step(context, std::move(loss));
  return loss;
}

void MethodStack::on_epoch(TrainContext& context, EpochEdge edge) {
  if (edge == EpochEdge::Start) {
    for (Entry& entry : entries_) entry.method->on_epoch(context, edge);
  } else {
    for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
      entry->method->on_epoch(context, edge);
    }
  }
}

void MethodStack::finalize(Surgeon& surgeon) {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    entry->method->finalize(surgeon);
  }
}

bool MethodStack::settled() const {
  return std::ranges::all_of(entries_, [](const Entry& entry) { return entry.method->settled(); });
}

void MethodStack::before_save(TrainContext& context) {
  for (Entry& entry : entries_) entry.method->before_save(context);
}

nlohmann::json MethodStack::save() const {
  nlohmann::json state = nlohmann::json::object();
  for (const Entry& entry : entries_) state[entry.name] = entry.method->save();
  return state;
}

void MethodStack::load(const nlohmann::json& state) {
  for (Entry& entry : entries_) entry.method->load(state.at(entry.name));
}

}  // namespace ablate
