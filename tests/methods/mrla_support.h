#pragma once

#include <memory>
#include <vector>

#include "methods/method_stack.h"
#include "methods/mrla.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

// Layer attention by itself, and attached to models by its methods.

namespace ablate::test {

/// Blocks of one stage, each with a module of its own, in double and evaluation mode.
template <typename Module>
class MrlaStage {
 public:
  MrlaStage(int blocks, std::int64_t channels, std::int64_t head_dim) {
    const MrlaOptions options{.head_dim = head_dim, .drop_path = 0.0};
    for (int i = 0; i < blocks; ++i) {
      const LayerPlace place{.name = cat("b", i), .channels = channels};
      auto module = std::make_shared<Module>(place, options);
      module->set_numbers(i, 0);
      module->initialize(3, place.name);
      module->to(at::kDouble);
      module->eval();
      modules.push_back(std::move(module));
    }
  }

  at::Tensor parameter(int block, const std::string& name) const {
    return modules[static_cast<std::size_t>(block)]->named_parameters()[name];
  }
  /// Copies values into a parameter of all blocks.
  void set(const std::string& name, const at::Tensor& values) {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < modules.size(); ++i) {
      parameter(static_cast<int>(i), name).copy_(values.expand_as(parameter(0, name)));
    }
  }
  /// 1-D filters that pass their input on, depthwise filters of the centre tap.
  void set_identity() {
    at::Tensor filter = at::zeros_like(parameter(0, "query").detach());
    filter.select(2, filter.size(2) / 2).fill_(1.0);
    at::Tensor tap = at::zeros_like(parameter(0, "value").detach());
    tap.select(2, 1).select(2, 1).fill_(1.0);
    set("query", filter);
    set("key", filter);
    set("value", tap);
  }

  /// What each block retrieves of its map; blocks of the gated form get `previous` as their
  /// shortcut's.
  std::vector<at::Tensor> retrieve(const std::vector<at::Tensor>& maps,
                                   const std::vector<at::Tensor>& previous = {}) {
    ForwardState state;
    state.retrievals = &record;
    record.retrievals.clear();
    state.layer_history = std::make_shared<LayerHistory>();
    state.layer_history->group = 0;
    std::vector<at::Tensor> retrieved;
    for (std::size_t i = 0; i < modules.size(); ++i) {
      modules[i]->forward(maps[i], previous.empty() ? at::Tensor() : previous[i], state);
      retrieved.push_back(state.layer_history->retrieved);
    }
    history = state.layer_history;
    return retrieved;
  }

  std::vector<std::shared_ptr<Module>> modules;
  RetrievalRecord record;
  std::shared_ptr<LayerHistory> history;
};

/// Reproducible maps (batch, channels, side, side), one a block.
inline std::vector<at::Tensor> wavy_maps(int blocks, std::int64_t batch, std::int64_t channels,
                                         std::int64_t side) {
  std::vector<at::Tensor> maps;
  for (int i = 0; i < blocks; ++i) {
    const at::Tensor k = at::arange(batch * channels * side * side, at::kDouble) + 17 * i;
    maps.push_back(
        ((0.31 * k + i).sin() + 0.5 * (0.073 * k * k).cos()).view({batch, channels, side, side}));
  }
  return maps;
}

/// Applies the methods of the TOML tables to a model as a run would, with seed 0.
inline std::unique_ptr<MethodContext> apply_methods(Model& model,
                                                    const std::vector<std::string>& tables) {
  std::vector<Component> components;
  for (const std::string& table : tables) components.push_back(method_component(table));
  auto context = std::make_unique<MethodContext>(model);
  MethodStack(components).apply(*context);
  return context;
}

}  // namespace ablate::test
