#include "methods/layer_cell.h"
#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "runner/core/params.h"

namespace ablate::methods::dianet {
namespace {

/// Dense-and-implicit attention (Huang et al., AAAI 2020): one cell a stage is shown the means of
/// each branch and scales it by its hidden state,
///
///   i, f, o = sigmoid, c~ = tanh of the four gates;  c <- f c + i c~;  h = o sigmoid(c);  y h.
///
/// The first block of the stage owns the cell, child cell.
class SharedCellAttention final : public LayerAttention {
 public:
  SharedCellAttention(std::shared_ptr<LayerCell> cell, bool owns)
      : cell_(std::move(cell)), owns_(owns) {
    if (owns) register_module("cell", cell_);
  }

  at::Tensor forward(const at::Tensor& y, const at::Tensor&, ForwardState& state) override {
    LayerHistory& history = *state.layer_history;
    const at::Tensor pooled = pool_channels(y);
    if (!history.hidden.defined()) history.hidden = history.cell = at::zeros_like(pooled);
    const auto gates =
        (cell_->of_input(pooled) + cell_->of_hidden(history.hidden)).chunk(kGates, 1);
    history.cell =
        at::sigmoid(gates[1]) * history.cell + at::sigmoid(gates[0]) * at::tanh(gates[3]);
    history.hidden = at::sigmoid(gates[2]) * at::sigmoid(history.cell);
    return y * as_channel_factors(history.hidden, y);
  }
  bool on_branch() const override { return true; }
  void initialize(std::uint64_t seed, const std::string& name) override {
    if (owns_) cell_->initialize(seed, name + ".cell");
  }

  static constexpr std::int64_t kGates = 4;

 private:
  std::shared_ptr<LayerCell> cell_;
  bool owns_;
};

std::int64_t read_reduction(Params& params) {
  return params.integer("reduction", 4, 1, 1 << 20, "channels over those of the hidden layers");
}

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "dianet", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       const auto cell = std::make_shared<LayerCell>(
           places.front().channels, read_reduction(params), SharedCellAttention::kGates);
       std::vector<std::shared_ptr<LayerAttention>> modules;
       for (std::size_t i = 0; i < places.size(); ++i) {
         modules.push_back(std::make_shared<SharedCellAttention>(cell, i == 0));
       }
       return modules;
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "dianet",
    .summary = "one recurrent cell a stage scales the channels of its branches",
    .paper = "Huang et al., DIANet: Dense-and-Implicit Attention Network, AAAI 2020",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::ChannelAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("dianet", params, [](Params& p) { read_reduction(p); });
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"dianet\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"dianet\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::dianet
