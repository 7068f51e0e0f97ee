#pragma once

#include <string>
#include <vector>

#include "methods/method_stack.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate::test {

using Counts = std::vector<std::int64_t>;

inline void apply_tome(MethodContext& context, const std::string& settings) {
  MethodStack({method_component("name = 'tome'\n" + settings)}).apply(context);
}

/// Tokens merged by block, as recorded; 0 where no reducer was put.
inline Counts recorded_schedule(MethodContext& context) {
  Counts schedule(context.surgeon().model().blocks().size(), 0);
  for (const Edit& edit : context.surgeon().edits()) {
    if (const auto* insert = std::get_if<InsertReducer>(&edit)) {
      schedule[static_cast<std::size_t>(insert->block)] = insert->params.find("r")->as_int();
    }
  }
  return schedule;
}

/// Tokens after each block.
inline Counts token_counts(Model& model) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  for (const Block* block : model.blocks()) state.taps.try_emplace(block->block_name());
  model.forward(wavy_images(1, model.image_size()), state);
  Counts counts;
  for (const Block* block : model.blocks()) {
    counts.push_back(state.taps[block->block_name()].size(1));
  }
  return counts;
}

/// As dilution leaves it: no attention, the input doubled.
inline void remove_attention(MethodContext& context, int block) {
  context.surgeon().apply(SetGains{block, 2, 0});
  context.surgeon().apply(RemoveMixer{block});
}

}  // namespace ablate::test
