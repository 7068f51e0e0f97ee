#include "methods/token_selection.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "methods/models/ops.h"
#include "methods/models/probe.h"
#include "runner/core/error.h"

namespace ablate {

at::Tensor by_score(const at::Tensor& scores, std::int64_t protected_tokens) {
  const at::NoGradGuard no_grad;
  const at::Tensor order =
      std::get<1>(scores.detach().sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true));
  const at::Tensor front = at::arange(protected_tokens, order.options());
  return at::cat({front.expand({order.size(0), protected_tokens}), order + protected_tokens}, 1);
}

void move_sources(const at::Tensor& positions, ForwardState& state) {
  if (!state.track_sources) return;
  state.sources = state.sources.defined() ? positions.gather(1, state.sources) : positions;
}

TokenStream keep_tokens(const at::Tensor& numbers, const TokenStream& stream, ForwardState& state,
                        const at::Tensor& positions) {
  if (state.track_sources) {
    if (!positions.defined()) throw Error(cat("tokens are dropped, but ", kFollowedTokens));
    move_sources(positions, state);
  }
  const at::Tensor kept = take_tokens(ops::join(stream, state), numbers);
  for (at::Tensor* of_tokens : {&state.token_sizes, &state.carried_keys}) {
    if (of_tokens->defined()) *of_tokens = take_tokens(*of_tokens, numbers);
  }
  for (at::Tensor* of_tokens : {&state.log_sizes, &state.token_mask}) {
    if (of_tokens->defined()) *of_tokens = of_tokens->gather(1, numbers);
  }
  return {kept};
}

std::int64_t kept_tokens(double keep, std::int64_t tokens) {
  return static_cast<std::int64_t>(std::ceil(keep * static_cast<double>(tokens)));
}

TokenStages TokenStages::read(Params& params) {
  constexpr std::int64_t kManyBlocks = 10'000;
  TokenStages stages;
  stages.blocks =
      params.integers("blocks", {}, 0, kManyBlocks,
                      "blocks that reduce tokens; empty: each quarter of the depth, 3, 6, 9 of 12");
  std::ranges::sort(stages.blocks);
  if (std::ranges::adjacent_find(stages.blocks) != stages.blocks.end()) {
    params.fail("blocks", "names a block twice");
  }
  return stages;
}

std::vector<int> TokenStages::of(std::int64_t depth, std::string_view method) const {
  std::vector<int> stages;
  for (const std::int64_t block : blocks) {
    if (block >= depth) {
      throw SpecError(cat("methods.", method, ".blocks: there is no block ", block,
                          "; blocks are 0 to ", depth - 1));
    }
    stages.push_back(static_cast<int>(block));
  }
  if (!blocks.empty()) return stages;
  for (std::int64_t quarter = 1; quarter < 4; ++quarter) {
    const auto block = static_cast<int>(quarter * depth / 4);
    if (stages.empty() || stages.back() != block) stages.push_back(block);
  }
  return stages;
}

std::vector<int> class_attention_stages(const std::vector<Block*>& blocks,
                                        const std::vector<int>& stages, std::string_view method) {
  std::vector<int> moved;
  int next = 0;
  for (const int stage : stages) {
    next = std::max(next, stage);
    const auto ranks = [&](int i) {
      const Block& block = *blocks[static_cast<std::size_t>(i)];
      return block.mixer() && !block.retiring() && block.mixer()->provides_class_attention();
    };
    while (next < std::ssize(blocks) && !ranks(next)) ++next;
    if (next == std::ssize(blocks)) {
      throw SpecError(cat("methods.", method, ".blocks: no block from ", stage,
                          " on has attention of a class token to rank tokens by"));
    }
    moved.push_back(next++);
  }
  return moved;
}

namespace {

constexpr const char* kFirst = "patch_embed";

}  // namespace

std::int64_t initial_tokens(Model& model) {
  ForwardState state;
  state.taps[kFirst];
  probe(model, state);
  return state.taps[kFirst].size(1);
}

void check_shortened(Model& model, std::string_view method) {
  const std::string last = model.blocks().back()->block_name();
  ForwardState state;
  state.taps[kFirst];
  state.taps[last];
  probe(model, state);
  if (state.taps[last].size(1) < state.taps[kFirst].size(1)) return;
  throw SpecError(cat("methods.", method,
                      ": no token goes anywhere: no block can reduce them, or they are too few"));
}

}  // namespace ablate
