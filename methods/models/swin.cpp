#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/ops_grid.h"
#include "methods/models/stages.h"
#include "methods/models/window_attention.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// Swin transformers (Liu et al., ICCV 2021) with timm's parameter names, and FLatten-Swin (Han et
// al., ICCV 2023), which has focused linear attention over the whole map in its first two stages.

namespace ablate::models::swin {
namespace {

constexpr double kNormEps = 1e-5;

struct Shape : StagedShape {
  std::int64_t window = 7;          ///< side of softmax windows, at most that of the map
  std::int64_t linear_window = 56;  ///< of focused linear attention, likewise

  std::int64_t window_at(std::size_t stage) const {
    return std::min(linear(stage) ? linear_window : window, side(stage));
  }
  /// Odd blocks shift by half a window, where there is more than one.
  std::int64_t shift_of(std::size_t stage, std::int64_t block) const {
    return block % 2 == 1 && window_at(stage) < side(stage) ? window_at(stage) / 2 : 0;
  }
};

/// Projected patches, normalised.
class PatchEmbed final : public StageEntry {
 public:
  PatchEmbed(std::int64_t patch, std::int64_t dim)
      : proj(register_module("proj", std::make_shared<Conv2d>(3, dim, patch, patch, 0, true))),
        norm(register_module("norm", std::make_shared<LayerNorm>(dim, kNormEps))) {}

  at::Tensor forward(const at::Tensor& images, ForwardState& state) override {
    const at::Tensor tokens = ops::patch_conv(ops::as_activation(images, state), *proj);
    return norm->forward(ops::as_stream(tokens, state));
  }

  std::shared_ptr<Conv2d> proj;
  std::shared_ptr<LayerNorm> norm;
};

/// Four neighbours side by side, normalised and projected.
class PatchMerging final : public StageEntry {
 public:
  PatchMerging(std::int64_t in, std::int64_t out)
      : norm(register_module("norm", std::make_shared<LayerNorm>(4 * in, kNormEps))),
        reduction(register_module("reduction", std::make_shared<Linear>(4 * in, out, false))) {}

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override {
    const auto [x, y] =
        ops::join_and_norm({ops::merge_neighbours(tokens, 2 * state.map_height)}, *norm, state);
    return ops::as_stream(ops::linear(y, *reduction, state), state);
  }

  std::shared_ptr<LayerNorm> norm;
  std::shared_ptr<Linear> reduction;
};

class SwinTransformer final : public StagedTransformer {
 public:
  SwinTransformer(const Shape& shape, const ModelContext& context);

  std::vector<std::string> head_names() const override { return {"head.fc"}; }
  std::vector<std::string> classifier_names() const override { return {"norm.", "head."}; }
  LayerNorm* final_norm() override { return norm_.get(); }
  std::vector<std::string> no_weight_decay() const override;

 protected:
  at::Tensor pool(const TokenStream& stream, ForwardState& state) override {
    return ops::join_and_norm(stream, *norm_, state).y.mean(1);
  }

 private:
  static std::shared_ptr<TokenMixer> make_mixer(const Shape& shape, std::size_t stage,
                                                std::int64_t block);

  std::shared_ptr<LayerNorm> norm_;
};

SwinTransformer::SwinTransformer(const Shape& shape, const ModelContext& context)
    : StagedTransformer(shape, context) {
  const auto embed =
      register_module("patch_embed", std::make_shared<PatchEmbed>(shape.patch_size, shape.dims[0]));
  const auto layers = register_module("layers", std::make_shared<torch::nn::Module>());
  for (std::size_t i = 0; i < shape.stages(); ++i) {
    const std::string number = std::to_string(i);
    const auto layer = layers->register_module(number, std::make_shared<torch::nn::Module>());
    std::shared_ptr<StageEntry> entry = embed;
    if (i > 0) {
      entry = layer->register_module(
          "downsample", std::make_shared<PatchMerging>(shape.dims[i - 1], shape.dims[i]));
    }
    const auto blocks = layer->register_module("blocks", std::make_shared<torch::nn::Module>());
    add_stage(shape, {.norm_eps = kNormEps}, entry, *blocks, cat("layers.", i, ".blocks."),
              [&](std::int64_t block) { return make_mixer(shape, i, block); });
  }
  if (context.features) return;
  norm_ = register_module("norm", std::make_shared<LayerNorm>(shape.dims.back(), kNormEps));
  const auto head = register_module("head", std::make_shared<torch::nn::Module>());
  head_ =
      head->register_module("fc", std::make_shared<Linear>(shape.dims.back(), context.num_classes));
}

std::shared_ptr<TokenMixer> SwinTransformer::make_mixer(const Shape& shape, std::size_t stage,
                                                        std::int64_t block) {
  const std::int64_t window = shape.window_at(stage), shift = shape.shift_of(stage, block);
  if (!shape.linear(stage)) {
    return std::make_shared<WindowAttention>(WindowAttentionOptions{.dim = shape.dims[stage],
                                                                    .num_heads = shape.heads[stage],
                                                                    .map_side = shape.side(stage),
                                                                    .window = window,
                                                                    .shift = shift});
  }
  FocusedAttentionOptions options = shape.focused(stage);
  options.window = window;
  options.shift = shift;
  return std::make_shared<FocusedLinearAttention>(options);
}

std::vector<std::string> SwinTransformer::no_weight_decay() const {
  std::vector<std::string> names;
  for (const auto& item : named_parameters()) {
    if (item.key().ends_with("relative_position_bias_table")) names.push_back(item.key());
  }
  return names;
}

using List = std::vector<std::int64_t>;

struct Variant {
  std::string_view name, summary;
  Shape shape;
};

Shape make_shape(std::int64_t image_size, std::int64_t patch_size, List dims, List depths,
                 List heads, std::string attention, std::int64_t window) {
  return {{.image_size = image_size,
           .patch_size = patch_size,
           .dims = std::move(dims),
           .depths = std::move(depths),
           .heads = std::move(heads),
           .attention = std::move(attention)},
          window};
}

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = [] {
    const auto full = [](std::int64_t width, std::int64_t depth, const std::string& attention) {
      const std::int64_t heads = width / 32;
      return make_shape(224, 4, {width, 2 * width, 4 * width, 8 * width}, {2, 2, depth, 2},
                        {heads, 2 * heads, 4 * heads, 8 * heads}, attention, 7);
    };
    const Shape a = make_shape(32, 2, {64, 128, 256}, {2, 2, 2}, {2, 4, 8}, "SSS", 4);
    const Shape b = make_shape(32, 2, {48, 96, 192}, {1, 1, 2}, {3, 6, 12}, "SSS", 4);
    const auto flatten = [](Shape shape) {
      shape.attention = "LLS";
      return shape;
    };
    return std::vector<Variant>{
        {"swin", "Swin transformer of any shape and attention", a},
        {"swin_tiny_patch4_window7_224", "Swin-T", full(96, 6, "SSSS")},
        {"swin_small_patch4_window7_224", "Swin-S", full(96, 18, "SSSS")},
        {"swin_base_patch4_window7_224", "Swin-B", full(128, 18, "SSSS")},
        {"flatten_swin_tiny_patch4_224", "FLatten-Swin-T", full(96, 6, "LLSS")},
        {"flatten_swin_small_patch4_224", "FLatten-Swin-S", full(96, 18, "LLSS")},
        {"flatten_swin_base_patch4_224", "FLatten-Swin-B", full(128, 18, "LLSS")},
        {"swin_micro_a_patch2_32", "Swin for images of 32, widths 64 to 256", a},
        {"swin_micro_b_patch2_32", "Swin for images of 32, widths 48 to 192", b},
        {"flatten_swin_micro_a_patch2_32", "FLatten-Swin for images of 32, widths 64 to 256",
         flatten(a)},
        {"flatten_swin_micro_b_patch2_32", "FLatten-Swin for images of 32, widths 48 to 192",
         flatten(b)},
    };
  }();
  return all;
}

// Shifted windows in the first stage, linear attention in the second.
constexpr std::string_view kExample =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [2, 1]\nnum_heads = [2, 4]\n"
    "attention = 'SL'\nwindow = 4\ndrop_path = 0.1\n";

ModelBuilder configure(std::string_view name, Params& params) {
  const auto found = std::ranges::find(variants(), name, &Variant::name);
  ABLATE_CHECK(found != variants().end(), name);
  Shape shape = found->shape;
  if (name == "swin") read_stages(params, shape);
  read_common(params, shape);
  if (shape.attention.find('S') != std::string::npos) {
    shape.window = params.integer("window", shape.window, 1, 4096,
                                  "side of softmax windows, at most that of the map");
  }
  if (shape.attention.find('L') != std::string::npos) {
    shape.linear_window =
        params.integer("linear_window", shape.linear_window, 1, 4096,
                       "side of the windows of linear attention, at most that of the map");
  }
  return [shape](const ModelContext& context) -> std::shared_ptr<Model> {
    return std::make_shared<SwinTransformer>(shape, context);
  };
}

const bool registered = [] {
  for (const Variant& v : variants()) {
    register_backbone(ModelInfo{
        .name = std::string(v.name),
        .summary = std::string(v.summary),
        .family = "swin",
        .semantics = 1,
        .offers = {Slot::TokenMixer, Slot::ResidualGains, Slot::ChannelGroups},
        .withheld = kStagedWithheld,
        .image_size = v.shape.image_size,
        .example = v.name == "swin" ? kExample : "",
        .features = Features::Stages,
        .configure = configure,
    });
  }
  return true;
}();

}  // namespace
}  // namespace ablate::models::swin
