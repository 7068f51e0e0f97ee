#include "methods/dla.h"

#include "runner/core/params.h"

namespace ablate {

DlaOptions DlaOptions::read(Params& params, bool relu) {
  DlaOptions options;
  options.mrla = MrlaOptions::read(params, relu);
  options.reduction = params.integer("reduction", 4, 1, 1 << 20,
                                     "channels over those of the sharing unit's hidden layers");
  return options;
}

at::Tensor DynamicSharingUnit::context(const at::Tensor& pooled, LayerHistory& history) const {
  return at::sigmoid(next_cell(pooled, history));
}

void DynamicSharingUnit::advance(const at::Tensor& pooled, LayerHistory& history) const {
  history.cell = next_cell(pooled, history);
  history.hidden = at::sigmoid(history.cell);
  history.of_hidden.reset();
}

at::Tensor DynamicSharingUnit::next_cell(const at::Tensor& pooled, LayerHistory& history) const {
  if (!history.hidden.defined()) history.hidden = history.cell = at::zeros_like(pooled);
  if (!history.of_hidden.defined()) history.of_hidden = of_hidden(history.hidden);
  const auto gates = (of_input(pooled) + history.of_hidden).chunk(kGates, 1);
  return at::sigmoid(gates[1]) * history.cell + at::sigmoid(gates[0]) * at::tanh(gates[2]);
}

}  // namespace ablate
