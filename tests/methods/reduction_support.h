#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/methods/tome_support.h"

namespace ablate::test {

/// Applies one method, given as the TOML text of its table.
inline void apply_method(MethodContext& context, const std::string& table) {
  MethodStack({method_component(table)}).apply(context);
}

/// A ViT of the published depth and number of tokens, narrow: neither follows the width.
inline std::shared_ptr<Model> narrow_deit(const std::string& more = "") {
  auto model = make_model("vit",
                          "image_size = 224\npatch_size = 16\nembed_dim = 8\nnum_heads = 1\n"
                          "depth = 12\n" +
                              more);
  model->initialize(1);
  model->eval();
  return model;
}

/// Multiply-accumulates of DeiT at 224 pixels: attention over `before`, MLP over `after`.
inline std::int64_t deit_macs(std::int64_t dim, std::int64_t classes, const Counts& before,
                              const Counts& after) {
  constexpr std::int64_t kPatches = 196, kPatchSize = 16;
  std::int64_t macs = kPatches * dim * 3 * kPatchSize * kPatchSize + dim * classes;
  for (std::size_t i = 0; i < after.size(); ++i) {
    macs += 4 * before[i] * dim * dim + 2 * before[i] * before[i] * dim + 8 * after[i] * dim * dim;
  }
  return macs;
}

/// Tokens in front of each block when reducers stand behind attention.
inline Counts shifted(const Counts& after, std::int64_t first = 197) {
  Counts before{first};
  before.insert(before.end(), after.begin(), after.end() - 1);
  return before;
}

/// A small ViT in float64 with texture in its weights: 17 tokens of width 16.
inline std::shared_ptr<Model> textured_vit(const std::string& more = "depth = 3\n") {
  auto model = make_model(
      "vit", "image_size = 16\npatch_size = 4\nembed_dim = 16\nnum_heads = 2\n" + more, 5);
  model->initialize(4);
  model->to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    // Attention that looks at something.
    if (item.key().find("qkv.weight") != std::string::npos) item.value().mul_(20);
  }
  return model;
}

/// A reducer of a registered kind.
inline std::shared_ptr<TokenReducer> make_token_reducer(const std::string& kind,
                                                        const Value::Table& table) {
  const Value value = table;
  Params params(value, kind);
  auto reducer = Registry<TokenReducerInfo>::get(kind).make(params);
  params.finish();
  return reducer;
}

/// Blocks with a reducer, as recorded.
inline std::vector<int> reducing_blocks(MethodContext& context) {
  std::vector<int> blocks;
  for (const Edit& edit : context.surgeon().edits()) {
    if (const auto* insert = std::get_if<InsertReducer>(&edit)) blocks.push_back(insert->block);
  }
  return blocks;
}

}  // namespace ablate::test
