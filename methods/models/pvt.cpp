#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/ops_grid.h"
#include "methods/models/spatial_reduction.h"
#include "methods/models/stages.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// Pyramid vision transformers (Wang et al., "Pyramid Vision Transformer", ICCV 2021) with the
// authors' parameter names, and FLatten-PVT (Han et al., ICCV 2023), which has focused linear
// attention everywhere and pools the mean of the tokens, as they leave the last block. The norm
// that the authors of the latter make and never apply is left out.

namespace ablate::models::pvt {
namespace {

constexpr double kBlockNormEps = 1e-6, kEntryNormEps = 1e-5;

struct Shape : StagedShape {
  std::vector<std::int64_t> mlp_ratios, reductions;
  bool class_token = true;  ///< in the last stage; else the mean of the tokens is classified

  std::int64_t prefix_tokens(std::size_t stage) const {
    return class_token && stage + 1 == stages() ? 1 : 0;
  }
};

class PvtPatchEmbed final : public torch::nn::Module {
 public:
  PvtPatchEmbed(std::int64_t in, std::int64_t out, std::int64_t patch)
      : proj(register_module("proj", std::make_shared<Conv2d>(in, out, patch, patch, 0, true))),
        norm(register_module("norm", std::make_shared<LayerNorm>(out, kEntryNormEps))) {}

  std::shared_ptr<Conv2d> proj;
  std::shared_ptr<LayerNorm> norm;
};

/// Projected patches, normalised, behind a class token if there is one, plus their positions. Its
/// parameters are those of the model, which registers them.
class PvtEntry final : public StageEntry {
 public:
  PvtEntry(std::shared_ptr<PvtPatchEmbed> embed, at::Tensor position, at::Tensor class_token)
      : embed_(std::move(embed)),
        position_(std::move(position)),
        class_token_(std::move(class_token)) {}

  at::Tensor forward(const at::Tensor& x, ForwardState& state) override {
    const std::int64_t patch = embed_->proj->stride();
    const at::Tensor map =
        ops::as_activation(x.dim() == 4 ? x : ops::map_of(x, patch * state.map_height), state);
    const at::Tensor projected = ops::patch_conv(map, *embed_->proj);
    const at::Tensor tokens = embed_->norm->forward(ops::as_stream(projected, state));
    const at::Tensor position = positions_of_map(position_, class_token_.defined() ? 1 : 0,
                                                 map.size(2) / patch, map.size(3) / patch);
    if (!class_token_.defined()) return tokens + position;
    return at::cat({class_token_.expand({x.size(0), -1, -1}), tokens}, 1) + position;
  }

 private:
  std::shared_ptr<PvtPatchEmbed> embed_;
  at::Tensor position_, class_token_;
};

class PyramidVisionTransformer final : public StagedTransformer {
 public:
  PyramidVisionTransformer(const Shape& shape, const ModelContext& context);

  std::vector<std::string> head_names() const override { return {"head"}; }
  std::vector<std::string> classifier_names() const override {
    return {"norm.", "head.", "cls_token"};
  }
  LayerNorm* final_norm() override { return norm_.get(); }
  std::vector<std::string> no_weight_decay() const override;

 protected:
  at::Tensor pool(const TokenStream& stream, ForwardState& state) override {
    if (norm_) return ops::join_and_norm_first(stream, 1, *norm_, state).select(1, 0);
    return ops::as_activation(ops::join(stream, state).mean(1), state);
  }

 private:
  std::shared_ptr<StageEntry> make_entry(const Shape& shape, std::size_t stage);
  static std::shared_ptr<TokenMixer> make_mixer(const Shape& shape, std::size_t stage);

  at::Tensor cls_token_;
  std::shared_ptr<LayerNorm> norm_;
};

PyramidVisionTransformer::PyramidVisionTransformer(const Shape& shape, const ModelContext& context)
    : StagedTransformer(shape, context) {
  if (shape.class_token) {
    cls_token_ = register_parameter("cls_token", at::empty({1, 1, shape.dims.back()}));
  }
  for (std::size_t i = 0; i < shape.stages(); ++i) {
    const auto entry = make_entry(shape, i);
    const std::string name = cat("block", i + 1);
    const auto blocks = register_module(name, std::make_shared<torch::nn::Module>());
    const BlockOptions options{.mlp_ratio = static_cast<double>(shape.mlp_ratios[i]),
                               .norm_eps = kBlockNormEps};
    add_stage(shape, options, entry, *blocks, name + ".",
              [&](std::int64_t) { return make_mixer(shape, i); });
  }
  if (shape.class_token) {
    norm_ = register_module("norm", std::make_shared<LayerNorm>(shape.dims.back(), kBlockNormEps));
  }
  if (context.features) return;
  head_ = register_module("head", std::make_shared<Linear>(shape.dims.back(), context.num_classes));
}

std::shared_ptr<StageEntry> PyramidVisionTransformer::make_entry(const Shape& shape,
                                                                 std::size_t stage) {
  const std::int64_t in = stage == 0 ? 3 : shape.dims[stage - 1],
                     patch = stage == 0 ? shape.patch_size : 2,
                     tokens = shape.prefix_tokens(stage) + shape.side(stage) * shape.side(stage);
  const auto embed = register_module(cat("patch_embed", stage + 1),
                                     std::make_shared<PvtPatchEmbed>(in, shape.dims[stage], patch));
  const at::Tensor position =
      register_parameter(cat("pos_embed", stage + 1), at::empty({1, tokens, shape.dims[stage]}));
  return std::make_shared<PvtEntry>(embed, position,
                                    shape.prefix_tokens(stage) > 0 ? cls_token_ : at::Tensor());
}

std::shared_ptr<TokenMixer> PyramidVisionTransformer::make_mixer(const Shape& shape,
                                                                 std::size_t stage) {
  if (shape.linear(stage)) {
    FocusedAttentionOptions options = shape.focused(stage);
    options.prefix_tokens = shape.prefix_tokens(stage);
    return std::make_shared<FocusedLinearAttention>(options);
  }
  return std::make_shared<SpatialReductionAttention>(shape.dims[stage], shape.heads[stage],
                                                     shape.reductions[stage]);
}

std::vector<std::string> PyramidVisionTransformer::no_weight_decay() const {
  std::vector<std::string> names;
  for (const auto& item : named_parameters(/*recurse=*/false)) names.push_back(item.key());
  return names;
}

struct Variant {
  std::string_view name, summary;
  bool small;  ///< depths 3-4-6-3 instead of 2-2-2-2
  bool linear;
};

constexpr Variant kVariants[] = {
    {"pvt", "pyramid vision transformer of any shape and attention", false, false},
    {"pvt_tiny", "PVT-T", false, false},
    {"pvt_small", "PVT-S", true, false},
    {"flatten_pvt_tiny", "FLatten-PVT-T", false, true},
    {"flatten_pvt_small", "FLatten-PVT-S", true, true},
};

// Reduced keys in the first stage, linear attention with a class token in the second.
constexpr std::string_view kExample =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\nnum_heads = [1, 2]\n"
    "mlp_ratios = [2, 2]\nreductions = [4, 1]\nattention = 'SL'\ndrop_path = 0.1\n";

Shape shape_of(const Variant& variant) {
  Shape shape;
  shape.dims = {64, 128, 320, 512};
  shape.depths = {2, 2, 2, 2};
  if (variant.small) shape.depths = {3, 4, 6, 3};
  shape.heads = {1, 2, 5, 8};
  shape.attention = variant.linear ? "LLLL" : "SSSS";
  shape.mlp_ratios = {8, 8, 4, 4};
  shape.reductions = {8, 4, 2, 1};
  shape.class_token = !variant.linear;
  return shape;
}

void read_free_form(Params& params, Shape& shape) {
  read_stages(params, shape);
  shape.mlp_ratios = params.integers("mlp_ratios", shape.mlp_ratios, 1, 64,
                                     "hidden width of the MLP over the width, of each stage");
  shape.reductions =
      params.integers("reductions", shape.reductions, 1, 64,
                      "of each stage: keys of softmax attention are of patches of this side");
  if (shape.mlp_ratios.size() != shape.stages() || shape.reductions.size() != shape.stages()) {
    params.fail("mlp_ratios", "mlp_ratios and reductions need a number a stage");
  }
}

void check_reductions(Params& params, const Shape& shape) {
  for (std::size_t i = 0; i < shape.stages(); ++i) {
    const std::int64_t reduction = shape.reductions[i];
    if (shape.linear(i) || reduction == 1) continue;
    const bool divides = shape.side(i) % reduction == 0;
    if (divides && shape.prefix_tokens(i) == 0) continue;
    params.fail(params.has("reductions") ? "reductions" : "image_size",
                cat(reduction, " in stage ", i + 1,
                    divides ? ", which has a class token, must be 1" : " does not divide its map"));
  }
}

ModelBuilder configure(std::string_view name, Params& params) {
  const auto* found = std::ranges::find(kVariants, name, &Variant::name);
  ABLATE_CHECK(found != std::end(kVariants), name);
  Shape shape = shape_of(*found);
  if (name == "pvt") read_free_form(params, shape);
  read_common(params, shape);
  shape.class_token =
      params.boolean("class_token", shape.class_token,
                     "classify a token of the last stage; else the mean of its tokens");
  check_reductions(params, shape);
  return [shape](const ModelContext& context) -> std::shared_ptr<Model> {
    Shape built = shape;
    // Maps have no place for it.
    if (context.features) built.class_token = false;
    return std::make_shared<PyramidVisionTransformer>(built, context);
  };
}

const bool registered = [] {
  for (const Variant& v : kVariants) {
    register_backbone(ModelInfo{
        .name = std::string(v.name),
        .summary = std::string(v.summary),
        .family = "pvt",
        .semantics = 1,
        .offers = {Slot::TokenMixer, Slot::ResidualGains, Slot::ChannelGroups},
        .withheld = kStagedWithheld,
        .image_size = 224,
        .example = v.name == "pvt" ? kExample : "",
        .features = Features::Stages,
        .configure = configure,
    });
  }
  return true;
}();

}  // namespace
}  // namespace ablate::models::pvt
