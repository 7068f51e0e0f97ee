#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/cross_window_attention.h"
#include "methods/models/ops_grid.h"
#include "methods/models/stages.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// CSWin transformers (Dong et al., CVPR 2022) and FLatten-CSwin (Han et al., ICCV 2023), which has
// focused linear attention over the whole map in its first two stages. Names are those of the
// other families: stages, blocks, attn.

namespace ablate::models::cswin {
namespace {

constexpr double kNormEps = 1e-5;

struct Shape : StagedShape {
  std::vector<std::int64_t> stripes;  ///< width of softmax stripes of each stage

  std::int64_t stripe_at(std::size_t stage) const { return std::min(stripes[stage], side(stage)); }
};

/// An overlapping convolution of images or of the tokens of the stage before, normalised.
class ConvEmbed final : public StageEntry {
 public:
  ConvEmbed(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride)
      : proj(register_module("proj",
                             std::make_shared<Conv2d>(in, out, kernel, stride, stride / 2, true))),
        norm(register_module("norm", std::make_shared<LayerNorm>(out, kNormEps))) {}

  at::Tensor forward(const at::Tensor& x, ForwardState& state) override {
    const at::Tensor map = ops::as_activation(
        x.dim() == 4 ? x : ops::map_of(x, proj->stride() * state.map_height), state);
    return norm->forward(ops::as_stream(ops::map_conv(map, *proj), state));
  }

  std::shared_ptr<Conv2d> proj;
  std::shared_ptr<LayerNorm> norm;
};

class CSwinTransformer final : public StagedTransformer {
 public:
  CSwinTransformer(const Shape& shape, const ModelContext& context);

  std::vector<std::string> head_names() const override { return {"head"}; }
  std::vector<std::string> classifier_names() const override { return {"norm.", "head."}; }
  LayerNorm* final_norm() override { return norm_.get(); }

 protected:
  at::Tensor pool(const TokenStream& stream, ForwardState& state) override {
    return ops::join_and_norm(stream, *norm_, state).y.mean(1);
  }

 private:
  static std::shared_ptr<StageEntry> make_entry(const Shape& shape, std::size_t stage);
  static std::shared_ptr<TokenMixer> make_mixer(const Shape& shape, std::size_t stage);

  std::shared_ptr<LayerNorm> norm_;
};

CSwinTransformer::CSwinTransformer(const Shape& shape, const ModelContext& context)
    : StagedTransformer(shape, context) {
  const auto stages = register_module("stages", std::make_shared<torch::nn::Module>());
  for (std::size_t i = 0; i < shape.stages(); ++i) {
    const auto stage =
        stages->register_module(std::to_string(i), std::make_shared<torch::nn::Module>());
    const auto entry = stage->register_module("embed", make_entry(shape, i));
    const auto blocks = stage->register_module("blocks", std::make_shared<torch::nn::Module>());
    add_stage(shape, {.norm_eps = kNormEps}, entry, *blocks, cat("stages.", i, ".blocks."),
              [&](std::int64_t) { return make_mixer(shape, i); });
  }
  if (context.features) return;
  norm_ = register_module("norm", std::make_shared<LayerNorm>(shape.dims.back(), kNormEps));
  head_ = register_module("head", std::make_shared<Linear>(shape.dims.back(), context.num_classes));
}

std::shared_ptr<StageEntry> CSwinTransformer::make_entry(const Shape& shape, std::size_t stage) {
  if (stage > 0) return std::make_shared<ConvEmbed>(shape.dims[stage - 1], shape.dims[stage], 3, 2);
  const std::int64_t stride = shape.patch_size;  // 7 x 7 at stride 4
  return std::make_shared<ConvEmbed>(3, shape.dims[0], 2 * stride - 1, stride);
}

std::shared_ptr<TokenMixer> CSwinTransformer::make_mixer(const Shape& shape, std::size_t stage) {
  if (!shape.linear(stage)) {
    return std::make_shared<CrossWindowAttention>(shape.dims[stage], shape.heads[stage],
                                                  shape.side(stage), shape.stripe_at(stage));
  }
  FocusedAttentionOptions options = shape.focused(stage);
  options.local_encoding = true;
  return std::make_shared<FocusedLinearAttention>(options);
}

struct Variant {
  std::string_view name, summary;
  bool linear;
};

constexpr Variant kVariants[] = {
    {"cswin", "CSWin transformer of any shape and attention", false},
    {"cswin_tiny", "CSWin-T", false},
    {"flatten_cswin_tiny", "FLatten-CSwin-T", true},
};

// Stripes in the first stage, linear attention in the second.
constexpr std::string_view kExample =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\nnum_heads = [2, 4]\n"
    "attention = 'SL'\nstripes = [2, 4]\ndrop_path = 0.1\n";

Shape shape_of(const Variant& variant) {
  Shape shape;
  shape.dims = {64, 128, 256, 512};
  shape.depths = {1, 2, 21, 1};
  if (variant.linear) shape.depths = {2, 4, 18, 1};
  shape.heads = {2, 4, 8, 16};
  shape.attention = variant.linear ? "LLSS" : "SSSS";
  shape.stripes = {1, 2, 7, 7};
  return shape;
}

void check_stripes(Params& params, const Shape& shape) {
  for (std::size_t i = 0; i < shape.stages(); ++i) {
    if (shape.linear(i)) continue;
    const std::int64_t stripe = shape.stripe_at(i), side = shape.side(i);
    if (stripe < side && shape.heads[i] % 2 != 0) {
      params.fail("num_heads", cat(shape.heads[i], " heads cannot look along two directions"));
    }
  }
}

ModelBuilder configure(std::string_view name, Params& params) {
  const auto* found = std::ranges::find(kVariants, name, &Variant::name);
  ABLATE_CHECK(found != std::end(kVariants), name);
  Shape shape = shape_of(*found);
  if (name == "cswin") {
    read_stages(params, shape);
    shape.stripes = params.integers("stripes", shape.stripes, 1, 4096,
                                    "width of the stripes of softmax attention in each stage");
    if (shape.stripes.size() != shape.stages()) params.fail("stripes", "needs a number a stage");
  }
  read_common(params, shape);
  check_stripes(params, shape);
  return [shape](const ModelContext& context) -> std::shared_ptr<Model> {
    return std::make_shared<CSwinTransformer>(shape, context);
  };
}

const bool registered = [] {
  for (const Variant& v : kVariants) {
    register_backbone(ModelInfo{
        .name = std::string(v.name),
        .summary = std::string(v.summary),
        .family = "cswin",
        .semantics = 1,
        .offers = {Slot::TokenMixer, Slot::ResidualGains, Slot::ChannelGroups},
        .withheld = kStagedWithheld,
        .image_size = 224,
        .example = v.name == "cswin" ? kExample : "",
        .features = Features::Stages,
        .configure = configure,
    });
  }
  return true;
}();

}  // namespace
}  // namespace ablate::models::cswin
