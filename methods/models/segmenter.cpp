#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/attention.h"
#include "methods/models/block.h"
#include "methods/models/dense.h"
#include "methods/models/dense_layers.h"
#include "methods/models/ops_grid.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// The mask transformer of Strudel et al., "Segmenter", ICCV 2021, without its dropout.

namespace ablate::models::segmenter {
namespace {

constexpr double kNormEps = 1e-5, kUnitEps = 1e-12;

struct Settings {
  std::int64_t layers = 2;
  std::int64_t head_dim = 64;
};

/// A learnt token a class; weight (classes, C).
class ClassTokens final : public torch::nn::Module {
 public:
  ClassTokens(std::int64_t classes, std::int64_t channels)
      : weight(register_parameter("weight", at::empty({classes, channels}))) {}
  at::Tensor weight;
};

at::Tensor unit_rows(const at::Tensor& x) {
  return x / x.norm(2, -1, /*keepdim=*/true).clamp_min(kUnitEps);
}

/// Tokens of the classes look at those of the map and the other way round; the score of a class at
/// a place is the cosine between the two, normalised over the classes.
class MaskTransformer final : public DenseHead {
 public:
  MaskTransformer(std::int64_t channels, const Settings& settings, std::int64_t classes);

  at::Tensor forward(const std::vector<at::Tensor>& maps, ForwardState& state) override;
  void initialize(std::uint64_t seed, const std::string& name) override;
  std::vector<std::string> class_modules() const override { return {"class_embed", "mask_norm"}; }

 private:
  at::Tensor decode(const at::Tensor& tokens, ForwardState& state) const;

  std::shared_ptr<Linear> proj_dec_, proj_patch_, proj_classes_;
  std::shared_ptr<ClassTokens> class_embed_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<LayerNorm> decoder_norm_, mask_norm_;
};

MaskTransformer::MaskTransformer(std::int64_t channels, const Settings& s, std::int64_t classes) {
  const std::int64_t heads = std::max<std::int64_t>(channels / s.head_dim, 1);
  proj_dec_ = register_module("proj_dec", std::make_shared<Linear>(channels, channels));
  class_embed_ = register_module("class_embed", std::make_shared<ClassTokens>(classes, channels));
  const auto stack = register_module("blocks", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string number = std::to_string(i);
    blocks_.push_back(stack->register_module(
        number, std::make_shared<Block>(
                    BlockOptions{.dim = channels, .num_heads = heads, .norm_eps = kNormEps},
                    "decode_head.blocks." + number, std::make_shared<Attention>(channels, heads))));
  }
  decoder_norm_ = register_module("decoder_norm", std::make_shared<LayerNorm>(channels, kNormEps));
  proj_patch_ = register_module("proj_patch", std::make_shared<Linear>(channels, channels, false));
  proj_classes_ =
      register_module("proj_classes", std::make_shared<Linear>(channels, channels, false));
  mask_norm_ = register_module("mask_norm", std::make_shared<LayerNorm>(classes, kNormEps));
}

at::Tensor MaskTransformer::decode(const at::Tensor& tokens, ForwardState& state) const {
  const at::Tensor projected =
      ops::as_stream(ops::linear(ops::as_activation(tokens, state), *proj_dec_, state), state);
  const at::Tensor of_classes = class_embed_->weight.unsqueeze(0).expand({tokens.size(0), -1, -1});
  TokenStream stream{at::cat({projected, of_classes}, 1)};
  for (const auto& block : blocks_) stream = block->forward(std::move(stream), state);
  return ops::join_and_norm(stream, *decoder_norm_, state).y;
}

at::Tensor MaskTransformer::forward(const std::vector<at::Tensor>& maps, ForwardState& state) {
  const at::Tensor& map = maps.back();
  const std::int64_t height = map.size(2), places = height * map.size(3);
  const at::Tensor decoded = decode(ops::tokens_of(map), state);
  const auto project = [&](const at::Tensor& rows, const Linear& layer) {
    // In float from here on, or places with like scores would tie.
    return unit_rows(ops::as_stream(ops::linear(rows.contiguous(), layer, state), state));
  };
  const at::Tensor patches = project(decoded.narrow(1, 0, places), *proj_patch_);
  const at::Tensor classes = project(decoded.slice(1, places), *proj_classes_);
  const at::Tensor masks = at::matmul(patches, classes.transpose(1, 2));
  return ops::map_of(mask_norm_->forward(masks), height);
}

void MaskTransformer::initialize(std::uint64_t seed, const std::string& name) {
  initialize_dense(*this, seed, name);
  const at::NoGradGuard no_grad;
  for (const char* part : {"proj_patch", "proj_classes"}) {
    at::Tensor weight =
        (part == std::string_view("proj_patch") ? proj_patch_ : proj_classes_)->weight;
    fill_normal(weight, seed, cat(name, ".", part, ".weight"),
                1.0 / std::sqrt(static_cast<double>(weight.size(1))));
  }
}

DensePlan configure_mask(Params& params, Features) {
  Settings settings;
  settings.layers =
      params.integer("decoder_layers", settings.layers, 0, 100, "blocks of the mask transformer");
  settings.head_dim = params.integer("decoder_head_dim", settings.head_dim, 1, 65'536,
                                     "channels of one of its attention heads, at most the width");
  return {{.taps = FeatureRequest::Taps::Last, .final_norm = true},
          [settings](const std::vector<FeatureLevel>& levels, const ModelContext& context) {
            const std::int64_t channels = levels.back().channels;
            if (channels % std::min(settings.head_dim, channels) != 0) {
              throw SpecError(cat("model.decoder_head_dim: ", settings.head_dim,
                                  " does not divide the width ", channels));
            }
            return DenseParts{
                .head = std::make_shared<MaskTransformer>(channels, settings, context.num_classes)};
          }};
}

const RegisterDenseHead added{{
    .name = "segmenter",
    .summary = "Segmenter's mask transformer",
    .family = "segmenter",
    .semantics = 1,
    .one_stride_only = true,
    .batch_norm = false,
    .example = "decoder_layers = 1\ndecoder_head_dim = 12\n",
    .configure = configure_mask,
}};

}  // namespace
}  // namespace ablate::models::segmenter
