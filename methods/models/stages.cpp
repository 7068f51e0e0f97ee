#include "methods/models/stages.h"

#include <algorithm>
#include <numeric>

#include "methods/models/initialize.h"
#include "methods/models/ops_grid.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

std::int64_t StagedShape::total_depth() const {
  return std::accumulate(depths.begin(), depths.end(), std::int64_t{0});
}

double StagedShape::drop_path_of(std::int64_t block) const {
  const std::int64_t last = total_depth() - 1;
  return last > 0 ? drop_path * static_cast<double>(block) / static_cast<double>(last) : 0.0;
}

FocusedAttentionOptions StagedShape::focused(std::size_t stage) const {
  FocusedAttentionOptions options = focus;
  options.dim = dims[stage];
  options.num_heads = heads[stage];
  options.map_side = side(stage);
  return options;
}

void read_common(Params& params, StagedShape& shape) {
  shape.image_size =
      params.integer("image_size", shape.image_size, 1, 4096, "side of the input in pixels");
  shape.drop_path = params.number("drop_path", 0.0, 0.0, 0.99,
                                  "stochastic depth: largest rate, rising from 0 over the blocks");
  if (shape.attention.find('L') != std::string::npos) read_focus(params, shape.focus);
  const std::int64_t unit = shape.patch_size << (shape.stages() - 1);
  if (shape.image_size % unit != 0) {
    params.fail("image_size", cat(shape.image_size, " is no multiple of ", unit,
                                  ", the stride of the last stage"));
  }
}

void read_stages(Params& params, StagedShape& shape) {
  constexpr std::int64_t kMost = 65'536;
  shape.patch_size =
      params.integer("patch_size", shape.patch_size, 1, 1024, "stride of the first stage");
  shape.dims = params.integers("embed_dims", shape.dims, 1, kMost, "width of each stage");
  shape.depths = params.integers("depths", shape.depths, 1, 1000, "blocks of each stage");
  shape.heads = params.integers("num_heads", shape.heads, 1, 1024, "attention heads of each stage");
  shape.attention =
      params.text("attention", shape.attention,
                  "a letter a stage: L focused linear attention, S the family's softmax attention");
  const std::size_t stages = shape.stages();
  if (stages == 0) params.fail("embed_dims", "empty; give the width of at least one stage");
  const auto check = [&](std::string_view key, std::size_t given) {
    if (given == stages) return;
    params.fail(key, cat(given, " of them for ", stages, " widths in embed_dims"));
  };
  check("depths", shape.depths.size());
  check("num_heads", shape.heads.size());
  check("attention", shape.attention.size());
  if (shape.attention.find_first_not_of("LS") != std::string::npos) {
    params.fail("attention", cat("\"", shape.attention, "\" has other letters than L and S"));
  }
  for (std::size_t i = 0; i < stages; ++i) {
    if (shape.dims[i] % shape.heads[i] == 0) continue;
    params.fail("num_heads", cat(shape.heads[i], " does not divide the width ", shape.dims[i]));
  }
}

void StagedTransformer::add_stage(
    const StagedShape& shape, const BlockOptions& common, std::shared_ptr<StageEntry> entry,
    torch::nn::Module& parent, const std::string& prefix,
    const std::function<std::shared_ptr<TokenMixer>(std::int64_t)>& mixer) {
  const std::size_t number = stages_.size();
  const auto before = static_cast<std::int64_t>(blocks().size());
  Stage stage{.entry = std::move(entry),
              .blocks = {},
              .level = {shape.dims[number], shape.patch_size << number},
              .norm = {}};
  for (std::int64_t i = 0; i < shape.depths[number]; ++i) {
    BlockOptions options = common;
    options.dim = shape.dims[number];
    options.num_heads = shape.heads[number];
    options.drop_path = shape.drop_path_of(before + i);
    const std::string index = std::to_string(i);
    stage.blocks.push_back(
        parent.register_module(index, std::make_shared<Block>(options, prefix + index, mixer(i))));
  }
  if (is_backbone_) {
    stage.norm = register_module(cat("norm", number),
                                 std::make_shared<LayerNorm>(shape.dims[number], common.norm_eps));
  }
  stages_.push_back(std::move(stage));
}

at::Tensor StagedTransformer::forward(const at::Tensor& images, ForwardState& state) {
  ABLATE_CHECK(head_, "a backbone has no classifier");
  return ops::class_scores(forward_features(images, state), *head_, state);
}

at::Tensor StagedTransformer::forward_features(const at::Tensor& images, ForwardState& state) {
  check_square(images, image_size_);
  TokenStream stream{images};
  for (const Stage& stage : stages_) {
    const bool first = &stage == &stages_.front();
    stream = run(stage, first ? images : ops::join(stream, state), state);
  }
  return pool(stream, state);
}

TokenStream StagedTransformer::run(const Stage& stage, const at::Tensor& x,
                                   ForwardState& state) const {
  TokenStream stream{stage.entry->forward(x, state)};
  for (const auto& block : stage.blocks) {
    stream = block->forward(std::move(stream), state);
    if (!state.taps.contains(block->block_name())) continue;
    stream = {ops::join(stream, state)};
    state.tap(block->block_name(), stream.base);
  }
  return stream;
}

std::vector<at::Tensor> StagedTransformer::features(const at::Tensor& images, ForwardState& state) {
  if (is_training()) check_square(images, image_size_);
  const at::Tensor padded = pad_to_units(images, stages_.back().level.stride);
  std::vector<at::Tensor> maps;
  at::Tensor x = padded;
  for (const Stage& stage : stages_) {
    state.map_height = padded.size(2) / stage.level.stride;
    const auto [joined, normed] = ops::join_and_norm(run(stage, x, state), *stage.norm, state);
    maps.push_back(ops::map_of(normed, state.map_height));
    x = joined;
  }
  state.forget_tokens();
  return maps;
}

std::vector<FeatureLevel> StagedTransformer::feature_levels() const {
  std::vector<FeatureLevel> levels;
  for (const Stage& stage : stages_) levels.push_back(stage.level);
  return levels;
}

std::vector<std::string> StagedTransformer::feature_names() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < stages_.size(); ++i) names.push_back(cat("norm", i, "."));
  return names;
}

std::vector<Block*> StagedTransformer::blocks() {
  std::vector<Block*> result;
  for (const Stage& stage : stages_) {
    for (const auto& block : stage.blocks) result.push_back(block.get());
  }
  return result;
}

void StagedTransformer::initialize(std::uint64_t seed) { initialize_transformer(*this, seed); }

}  // namespace ablate
