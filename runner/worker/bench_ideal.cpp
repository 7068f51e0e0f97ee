#include "runner/worker/bench_ideal.h"

#include "methods/models/model.h"
#include "methods/models/probe.h"
#include "runner/core/error.h"
#include "runner/worker/standalone_model.h"

namespace ablate {

std::vector<BlockTokens> block_tokens(const Structure& structure) {
  const std::shared_ptr<Model> model = build_model(structure, at::kFloat, 0);
  if (model->blocks().empty()) {
    throw SpecError(cat("--ideal: ", structure.model.name, " has no transformer blocks"));
  }
  if (!model->one_stream()) {
    throw SpecError(cat("--ideal: the blocks of ", structure.model.name,
                        " differ in width and tokens; models of one stage are accepted"));
  }
  ForwardState state;
  for (const Block* block : model->blocks()) {
    state.taps[block->block_name() + ".attn"];
    state.taps[block->block_name() + ".mlp"];
  }
  probe(*model, state);
  std::vector<BlockTokens> tokens;
  for (const Block* block : model->blocks()) {
    const at::Tensor &attention = state.taps[block->block_name() + ".attn"],
                     &mlp = state.taps[block->block_name() + ".mlp"];
    tokens.push_back({.attention = attention.defined() ? attention.size(1) : 0,
                      .mlp = mlp.defined() ? mlp.size(1) : 0});
  }
  return tokens;
}

double ideal_saving(const std::vector<BlockTokens>& structure,
                    const std::vector<BlockTokens>& dense, const BranchCosts& costs) {
  ABLATE_CHECK(structure.size() == dense.size(), structure.size(), " blocks against ",
               dense.size());
  const auto spared = [](std::int64_t now, std::int64_t before) {
    return before == 0 ? 0.0 : 1.0 - static_cast<double>(now) / static_cast<double>(before);
  };
  double saving = 0.0;
  for (std::size_t i = 0; i < dense.size(); ++i) {
    saving += costs.attention * spared(structure[i].attention, dense[i].attention) +
              costs.mlp * spared(structure[i].mlp, dense[i].mlp);
  }
  return saving;
}

}  // namespace ablate
