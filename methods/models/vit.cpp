#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/attention.h"
#include "methods/models/backbone.h"
#include "methods/models/block.h"
#include "methods/models/dense.h"
#include "methods/models/focused_attention.h"
#include "methods/models/half_images.h"
#include "methods/models/initialize.h"
#include "methods/models/layers.h"
#include "methods/models/ops_grid.h"
#include "methods/models/token_rows.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// Vision transformers (Dosovitskiy et al., ICLR 2021) as DeiT sizes them (Touvron et al., ICML
// 2021), with timm's parameter names.

namespace ablate::models::vit {
namespace {

struct Options {
  std::int64_t image_size, patch_size, dim, depth, heads;
  double mlp_ratio = 4.0;
  bool distilled = false;
  double drop_path = 0.0;
  bool drop_path_linear = true;
  bool focused = false;  ///< linear attention instead of softmax attention
  FocusedAttentionOptions focus{};
};

constexpr double kNormEps = 1e-6;

/// Projects each patch of an image; child proj holds a convolution's weight.
class PatchEmbed final : public torch::nn::Module {
 public:
  PatchEmbed(std::int64_t patch, std::int64_t dim)
      : proj(register_module("proj", std::make_shared<Conv2d>(3, dim, patch, patch, 0, true))) {}

  std::shared_ptr<Conv2d> proj;
};

/// Of focused linear attention, the class token takes part in attention and not in the convolution
/// of the values, as the authors do it in later work: a reconstruction, the paper does not say.
std::shared_ptr<TokenMixer> make_mixer(const Options& o) {
  if (!o.focused) return std::make_shared<Attention>(o.dim, o.heads);
  FocusedAttentionOptions options = o.focus;
  options.dim = o.dim;
  options.num_heads = o.heads;
  options.map_side = o.image_size / o.patch_size;
  options.prefix_tokens = o.distilled ? 2 : 1;
  return std::make_shared<FocusedLinearAttention>(options);
}

class VisionTransformer final : public Backbone, public HalfImages {
 public:
  VisionTransformer(const Options& options, const ModelContext& context);

  at::Tensor forward(const at::Tensor& images, ForwardState& state) override;
  at::Tensor forward_features(const at::Tensor& images, ForwardState& state) override {
    return final_tokens(images, state).select(1, 0);
  }
  std::vector<at::Tensor> features(const at::Tensor& images, ForwardState& state) override;
  std::vector<FeatureLevel> feature_levels() const override;
  std::vector<std::string> classifier_names() const override;
  void rescale_taps(const std::vector<double>& factors) override { tap_factors_ = factors; }
  std::vector<Block*> blocks() override;
  std::vector<LayerSite*> layer_sites() override;
  LayerNorm* final_norm() override { return norm_.get(); }
  std::vector<std::string> head_names() const override;
  std::int64_t image_size() const override { return image_size_; }
  void initialize(std::uint64_t seed) override;
  std::vector<std::string> no_weight_decay() const override;

 private:
  std::int64_t prefix_tokens() const { return dist_token_.defined() ? 2 : 1; }
  std::int64_t patch_side() const { return patch_embed_->proj->stride(); }
  void add_classifier(const Options& options, std::int64_t classes);
  at::Tensor embed(const at::Tensor& images, ForwardState& state) const;
  void begin(ForwardState& state) const;
  at::Tensor read(TokenStream& stream, std::size_t block, ForwardState& state) const;
  /// Class and distillation token after the last norm: (B, prefix_tokens(), C).
  at::Tensor final_tokens(const at::Tensor& images, ForwardState& state);

  std::int64_t image_size_;
  at::Tensor cls_token_, pos_embed_, dist_token_;
  std::shared_ptr<PatchEmbed> patch_embed_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<LayerNorm> norm_;
  std::shared_ptr<Linear> head_, head_dist_;
  std::vector<std::int64_t> taps_;   ///< of a backbone: the blocks whose output is read
  std::vector<double> tap_factors_;  ///< of each block; empty: 1
};

VisionTransformer::VisionTransformer(const Options& o, const ModelContext& context)
    : image_size_(o.image_size) {
  const std::int64_t grid = o.image_size / o.patch_size;
  cls_token_ = register_parameter("cls_token", at::empty({1, 1, o.dim}));
  pos_embed_ =
      register_parameter("pos_embed", at::empty({1, grid * grid + (o.distilled ? 2 : 1), o.dim}));
  if (o.distilled) dist_token_ = register_parameter("dist_token", at::empty({1, 1, o.dim}));
  patch_embed_ = register_module("patch_embed", std::make_shared<PatchEmbed>(o.patch_size, o.dim));
  const auto stack = register_module("blocks", std::make_shared<torch::nn::Module>("blocks"));
  for (std::int64_t i = 0; i < o.depth; ++i) {
    const double ramp = o.depth > 1 ? static_cast<double>(i) / static_cast<double>(o.depth - 1) : 0;
    const BlockOptions block{.dim = o.dim,
                             .num_heads = o.heads,
                             .mlp_ratio = o.mlp_ratio,
                             .drop_path = o.drop_path_linear ? o.drop_path * ramp : o.drop_path,
                             .norm_eps = kNormEps};
    const std::string index = std::to_string(i);
    blocks_.push_back(stack->register_module(
        index, std::make_shared<Block>(block, "blocks." + index, make_mixer(o))));
  }
  if (context.features) taps_ = context.features->blocks_of(o.depth);
  if (!context.features || context.features->final_norm) {
    norm_ = register_module("norm", std::make_shared<LayerNorm>(o.dim, kNormEps));
  }
  if (!context.features) add_classifier(o, context.num_classes);
}

void VisionTransformer::add_classifier(const Options& o, std::int64_t classes) {
  head_ = register_module("head", std::make_shared<Linear>(o.dim, classes));
  if (o.distilled) {
    head_dist_ = register_module("head_dist", std::make_shared<Linear>(o.dim, classes));
  }
}

at::Tensor VisionTransformer::embed(const at::Tensor& images, ForwardState& state) const {
  const std::int64_t height = images.size(2) / patch_side(), width = images.size(3) / patch_side();
  ops::Embedding embedding{
      .weight = patch_embed_->proj->weight,
      .bias = patch_embed_->proj->bias,
      .prefix = {cls_token_},
      .position = positions_of_map(pos_embed_, prefix_tokens(), height, width)};
  if (dist_token_.defined()) embedding.prefix.push_back(dist_token_);
  return ops::embed_patches(images, embedding, state);
}

void VisionTransformer::begin(ForwardState& state) const {
  state.protected_tokens = prefix_tokens();
  for (const auto& block : blocks_) {
    if (block->reducer()) block->reducer()->begin(state);
    // Layer attention needs the place of each token.
    if (block->layer_attention()) state.track_sources = true;
  }
}

at::Tensor VisionTransformer::final_tokens(const at::Tensor& images, ForwardState& state) {
  check_square(images, image_size_);
  begin(state);
  TokenStream stream{embed(images, state)};
  state.tap("patch_embed", stream.base);
  for (const auto& block : blocks_) {
    stream = block->forward(std::move(stream), state);
    if (state.taps.contains(block->block_name())) {
      stream = {ops::join(stream, state)};
      state.tap(block->block_name(), stream.base);
    }
  }
  // Only these tokens reach a head, so only they are normalised.
  const at::Tensor tokens = ops::join_and_norm_first(stream, prefix_tokens(), *norm_, state);
  state.tap("norm", tokens);
  return tokens;
}

std::vector<at::Tensor> VisionTransformer::features(const at::Tensor& images, ForwardState& state) {
  if (is_training()) check_square(images, image_size_);
  const at::Tensor padded = pad_to_units(images, patch_side());
  begin(state);
  state.track_sources = true;
  state.map_height = padded.size(2) / patch_side();
  std::vector<at::Tensor> maps;
  TokenStream stream{embed(padded, state)};
  state.tap("patch_embed", stream.base);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    stream = blocks_[i]->forward(std::move(stream), state);
    const std::string& name = blocks_[i]->block_name();
    if (state.taps.contains(name)) {
      stream = {ops::join(stream, state)};
      state.tap(name, stream.base);
    }
    // Shallow models have blocks that are read twice.
    for (const std::int64_t tap : taps_) {
      if (tap == static_cast<std::int64_t>(i)) maps.push_back(read(stream, i, state));
    }
  }
  state.forget_tokens();
  return maps;
}

/// What a dense model sees behind a block: all places, whatever tokens there are.
at::Tensor VisionTransformer::read(TokenStream& stream, std::size_t block,
                                   ForwardState& state) const {
  at::Tensor tokens;
  if (norm_ && block + 1 == blocks_.size()) {
    tokens = ops::join_and_norm(stream, *norm_, state).y;
  } else {
    stream = {ops::join(stream, state)};
    const double factor = tap_factors_.empty() ? 1.0 : tap_factors_[block];
    tokens = factor == 1.0 ? stream.base : stream.base * factor;
  }
  const at::Tensor places = state.sources.defined()
                                ? take_tokens(tokens, state.sources.slice(1, prefix_tokens()))
                                : tokens.slice(1, prefix_tokens());
  return ops::map_of(places, state.map_height);
}

std::vector<FeatureLevel> VisionTransformer::feature_levels() const {
  return std::vector<FeatureLevel>(taps_.size(), {cls_token_.size(2), patch_side()});
}

std::vector<std::string> VisionTransformer::classifier_names() const {
  if (norm_) return {"head.", "head_dist."};
  return {"head.", "head_dist.", "norm."};
}

at::Tensor VisionTransformer::forward(const at::Tensor& images, ForwardState& state) {
  ABLATE_CHECK(head_, "a backbone has no classifier");
  const at::Tensor tokens = final_tokens(images, state);
  const at::Tensor logits = ops::class_scores(tokens.select(1, 0), *head_, state);
  if (!head_dist_) return logits;
  const at::Tensor distilled = ops::class_scores(tokens.select(1, 1), *head_dist_, state);
  return is_training() ? at::stack({logits, distilled}, 1) : (logits + distilled) / 2;
}

std::vector<Block*> VisionTransformer::blocks() {
  std::vector<Block*> result;
  for (const auto& block : blocks_) result.push_back(block.get());
  return result;
}

std::vector<LayerSite*> VisionTransformer::layer_sites() {
  std::vector<LayerSite*> result;
  for (const auto& block : blocks_) result.push_back(block.get());
  return result;
}

std::vector<std::string> VisionTransformer::head_names() const {
  if (head_dist_) return {"head", "head_dist"};
  return {"head"};
}

std::vector<std::string> VisionTransformer::no_weight_decay() const {
  if (dist_token_.defined()) return {"cls_token", "dist_token", "pos_embed"};
  return {"cls_token", "pos_embed"};
}

void VisionTransformer::initialize(std::uint64_t seed) { initialize_transformer(*this, seed); }

struct Variant {
  std::string_view name;
  std::int64_t image_size, patch_size, dim, heads;
  bool distilled = false, focused = false;
  /// Settings give its shape.
  bool free_form() const { return name == "vit" || name == "flatten_vit"; }
};

constexpr Variant kVariants[] = {
    {"vit", 32, 4, 192, 3},
    {"vit_tiny_patch4_32", 32, 4, 192, 3},
    {"vit_small_patch4_32", 32, 4, 384, 6},
    {"deit_tiny_patch16_224", 224, 16, 192, 3},
    {"deit_small_patch16_224", 224, 16, 384, 6},
    {"deit_base_patch16_224", 224, 16, 768, 12},
    {"deit_base_patch16_384", 384, 16, 768, 12},
    {"deit_tiny_distilled_patch16_224", 224, 16, 192, 3, true},
    {"deit_small_distilled_patch16_224", 224, 16, 384, 6, true},
    {"deit_base_distilled_patch16_224", 224, 16, 768, 12, true},
    {"deit_base_distilled_patch16_384", 384, 16, 768, 12, true},
    {"flatten_vit", 32, 4, 192, 3, false, true},
    {"flatten_deit_tiny_patch16_224", 224, 16, 192, 3, false, true},
    {"flatten_deit_small_patch16_224", 224, 16, 384, 6, false, true},
    {"flatten_deit_base_patch16_224", 224, 16, 768, 12, false, true},
};
constexpr std::int64_t kDepth = 12;
constexpr std::string_view kExample =
    "image_size = 16\nembed_dim = 24\ndepth = 2\nnum_heads = 2\ndrop_path = 0.1\n";

const Variant& variant(std::string_view name) {
  for (const Variant& candidate : kVariants) {
    if (candidate.name == name) return candidate;
  }
  check_failed("registered name", std::string(name));
}

/// The settings of the free form, whose shape is not given by its name.
void read_shape(Params& params, Options& o) {
  o.patch_size = params.integer("patch_size", o.patch_size, 1, 1024, "side of a patch in pixels");
  o.dim = params.integer("embed_dim", o.dim, 1, 65536, "width of the residual stream");
  o.depth = params.integer("depth", o.depth, 1, 1000, "number of blocks");
  o.heads = params.integer("num_heads", o.heads, 1, 1024, "attention heads; must divide embed_dim");
  o.mlp_ratio =
      params.number("mlp_ratio", o.mlp_ratio, 0.01, 64, "hidden width of the MLP over embed_dim");
  o.distilled = params.boolean("distilled", false, "distillation token and a head of its own");
  if (o.dim % o.heads != 0) {
    params.fail("num_heads", cat(o.heads, " does not divide embed_dim = ", o.dim));
  }
}

ModelBuilder configure(std::string_view name, Params& params) {
  const Variant& base = variant(name);
  Options o{.image_size = base.image_size,
            .patch_size = base.patch_size,
            .dim = base.dim,
            .depth = kDepth,
            .heads = base.heads,
            .distilled = base.distilled,
            .focused = base.focused};
  o.image_size = params.integer("image_size", o.image_size, 1, 4096, "side of the input in pixels");
  if (base.free_form()) read_shape(params, o);
  if (base.focused) read_focus(params, o.focus);
  o.drop_path = params.number("drop_path", 0.0, 0.0, 0.99, "stochastic depth: largest rate");
  o.drop_path_linear =
      params.choice(
          "drop_path_mode", "linear", {"linear", "constant"},
          "rate over depth: from 0 at the first block to drop_path at the last, or equal") ==
      "linear";
  if (o.image_size % o.patch_size != 0) {
    params.fail("image_size",
                cat(o.image_size, " is no multiple of the patch side ", o.patch_size));
  }
  return [o](const ModelContext& context) -> std::shared_ptr<Model> {
    return std::make_shared<VisionTransformer>(o, context);
  };
}

std::string summary(const Variant& v) {
  if (v.name == "vit") return "vision transformer of any shape";
  if (v.name == "flatten_vit") return "vision transformer of any shape, focused linear attention";
  return cat(v.focused ? "FLatten-ViT (layout is a reconstruction)" : "ViT", ", width ", v.dim,
             ", 12 blocks, ", v.heads, " heads, patch ", v.patch_size, " at ", v.image_size,
             v.distilled ? ", distillation token" : "");
}

constexpr std::string_view kFocusedWithheld =
    "linear attention has no logits for sizes of merged tokens, and its convolution needs the map";

std::vector<Slot> offers(const Variant& v) {
  std::vector<Slot> slots{Slot::TokenMixer, Slot::ResidualGains, Slot::LayerAttention,
                          Slot::ChannelGroups};
  if (!v.focused) slots.push_back(Slot::TokenReducer);
  return slots;
}

const bool registered = [] {
  for (const Variant& v : kVariants) {
    register_backbone(ModelInfo{
        .name = std::string(v.name),
        .summary = summary(v),
        .family = "vit",
        .semantics = 1,
        .offers = offers(v),
        .withheld = v.focused ? kFocusedWithheld : "",
        .image_size = v.image_size,
        .distilled = v.distilled,
        .example = v.free_form() ? kExample : "",
        .features = Features::OneStride,
        .configure = configure,
    });
  }
  return true;
}();

}  // namespace
}  // namespace ablate::models::vit
