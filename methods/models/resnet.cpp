#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/batch_norm.h"
#include "methods/models/dense.h"
#include "methods/models/half_images.h"
#include "methods/models/layers.h"
#include "methods/models/ops.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// Residual networks (He et al., CVPR 2016) with torchvision's names: the ImageNet sizes, and the
// bottleneck sizes for 32 x 32 images that layer-attention papers use (three stages of
// (depth - 2) / 9 blocks, 16/32/64 planes).

namespace ablate::models::resnet {
namespace {

struct Variant {
  std::string_view name;
  bool small_images;  ///< 3x3 stem without pooling, 16 planes at the first stage
  bool bottleneck;
  std::vector<std::int64_t> blocks;  ///< in each stage
};

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = {
      {"resnet18", false, false, {2, 2, 2, 2}},  {"resnet34", false, false, {3, 4, 6, 3}},
      {"resnet50", false, true, {3, 4, 6, 3}},   {"resnet101", false, true, {3, 4, 23, 3}},
      {"resnet152", false, true, {3, 8, 36, 3}}, {"resnet20", true, true, {2, 2, 2}},
      {"resnet56", true, true, {6, 6, 6}},       {"resnet110", true, true, {12, 12, 12}},
  };
  return all;
}

struct BlockShape {
  std::string name;
  int stage;
  bool bottleneck;
  std::int64_t in, planes, stride, bn_group;
  std::int64_t out() const { return bottleneck ? 4 * planes : planes; }
};

/// conv - norm - relu, twice (basic) or thrice (bottleneck), added to the shortcut before the last
/// relu. The stride sits in the 3x3 convolution. Slots: channel attention on the branch before it
/// is added, layer attention behind the last relu.
class ResidualBlock final : public LayerSite {
 public:
  explicit ResidualBlock(const BlockShape& shape);
  ops::Fork forward(const ops::Fork& x, ForwardState& state);
  GroupBatchNorm2d& last_norm() { return *norms_.back(); }

 private:
  void add(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
           std::int64_t bn_group);
  ops::Fork join(const at::Tensor& y, ops::Shortcut shortcut, ForwardState& state);
  ops::Fork scale_and_join(const at::Tensor& y, const ops::Shortcut& shortcut, ForwardState& state);

  std::vector<std::shared_ptr<Conv2d>> convs_;
  std::vector<std::shared_ptr<GroupBatchNorm2d>> norms_;
  std::shared_ptr<Conv2d> shortcut_conv_;
  std::shared_ptr<GroupBatchNorm2d> shortcut_norm_;
};

ResidualBlock::ResidualBlock(const BlockShape& s)
    : LayerSite({.name = s.name, .channels = s.out(), .stage = s.stage, .bn_group = s.bn_group}) {
  if (s.bottleneck) {
    add(s.in, s.planes, 1, 1, s.bn_group);
    add(s.planes, s.planes, 3, s.stride, s.bn_group);
    add(s.planes, s.out(), 1, 1, s.bn_group);
  } else {
    add(s.in, s.planes, 3, s.stride, s.bn_group);
    add(s.planes, s.planes, 3, 1, s.bn_group);
  }
  if (s.stride == 1 && s.in == s.out()) return;
  const auto shortcut = register_module("downsample", std::make_shared<torch::nn::Module>());
  shortcut_conv_ = shortcut->register_module(
      "0", std::make_shared<Conv2d>(s.in, s.out(), 1, s.stride, 0, false));
  shortcut_norm_ =
      shortcut->register_module("1", std::make_shared<GroupBatchNorm2d>(s.out(), s.bn_group));
}

void ResidualBlock::add(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                        std::int64_t bn_group) {
  const std::string index = std::to_string(convs_.size() + 1);
  convs_.push_back(register_module(
      "conv" + index, std::make_shared<Conv2d>(in, out, kernel, stride, kernel / 2, false)));
  norms_.push_back(
      register_module("bn" + index, std::make_shared<GroupBatchNorm2d>(out, bn_group)));
}

ops::Fork ResidualBlock::forward(const ops::Fork& x, ForwardState& state) {
  at::Tensor y = x.main;
  for (std::size_t i = 0; i + 1 < convs_.size(); ++i) {
    y = ops::batch_norm_relu(ops::conv2d(y, *convs_[i], state), *norms_[i], state);
  }
  y = ops::conv2d(y, *convs_.back(), state);
  ops::Shortcut shortcut{.x = x.shortcut};
  if (shortcut_conv_) {
    shortcut = {ops::conv2d(x.shortcut, *shortcut_conv_, state), shortcut_norm_.get()};
  }
  return layer_attention() ? join(y, shortcut, state)
                           : ops::batch_norm_add_relu(y, *norms_.back(), shortcut, state);
}

/// The addition with layer or channel attention.
ops::Fork ResidualBlock::join(const at::Tensor& y, ops::Shortcut shortcut, ForwardState& state) {
  const LayerAttention& attention = *layer_attention();
  if (attention.on_branch()) return scale_and_join(y, shortcut, state);
  at::Tensor previous;
  if (attention.needs_previous()) {
    if (shortcut.norm) shortcut = {ops::batch_norm(shortcut.x, *shortcut.norm, state)};
    previous = attention.remember(shortcut.x, state);
  }
  const ops::Fork x = ops::batch_norm_add_relu(y, *norms_.back(), shortcut, state);
  if (attention.skip() == SkipMode::Drop) {
    if (wants_shadow(state)) shadow(x.main, state);
    return x;
  }
  const at::Tensor branch = attend(x.main, previous, state);
  if (attention.adds_nothing()) return x;
  const at::Tensor scale = drop_scale(branch, state);
  const at::Tensor sum =
      scale.defined() ? at::addcmul(x.shortcut, branch, scale) : at::add(x.shortcut, branch);
  return {sum, sum};
}

ops::Fork ResidualBlock::scale_and_join(const at::Tensor& y, const ops::Shortcut& shortcut,
                                        ForwardState& state) {
  const at::Tensor branch = attend(ops::batch_norm(y, *norms_.back(), state), {}, state);
  const at::Tensor identity =
      shortcut.norm ? ops::batch_norm(shortcut.x, *shortcut.norm, state) : shortcut.x;
  const at::Tensor sum = at::add(branch, identity).relu_();
  return {sum, sum};
}

class ResNet final : public Backbone, public HalfImages {
 public:
  ResNet(const Variant& variant, std::int64_t image_size, bool zero_init_residual,
         const ModelContext& context);

  at::Tensor forward(const at::Tensor& images, ForwardState& state) override {
    return ops::class_scores(forward_features(images, state), *fc_, state);
  }
  at::Tensor forward_features(const at::Tensor& images, ForwardState& state) override {
    return features(images, state).back().mean({2, 3});
  }
  /// The output of each stage, whatever the size of the images.
  std::vector<at::Tensor> features(const at::Tensor& images, ForwardState& state) override;
  std::vector<FeatureLevel> feature_levels() const override;
  std::vector<std::string> classifier_names() const override { return {"fc."}; }
  std::vector<LayerSite*> layer_sites() override;
  std::vector<std::string> head_names() const override { return {"fc"}; }
  std::int64_t image_size() const override { return image_size_; }
  void initialize(std::uint64_t seed) override;

 private:
  bool small_images_, zero_init_residual_;
  std::int64_t image_size_;
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<GroupBatchNorm2d> bn1_;
  std::vector<std::vector<std::shared_ptr<ResidualBlock>>> stages_;
  std::shared_ptr<Linear> fc_;
};

ResNet::ResNet(const Variant& variant, std::int64_t image_size, bool zero_init_residual,
               const ModelContext& context)
    : small_images_(variant.small_images),
      zero_init_residual_(zero_init_residual),
      image_size_(image_size) {
  std::int64_t planes = small_images_ ? 16 : 64, width = planes;
  conv1_ =
      register_module("conv1", small_images_ ? std::make_shared<Conv2d>(3, planes, 3, 1, 1, false)
                                             : std::make_shared<Conv2d>(3, planes, 7, 2, 3, false));
  bn1_ = register_module("bn1", std::make_shared<GroupBatchNorm2d>(planes, context.bn_group));
  for (std::size_t stage = 0; stage < variant.blocks.size(); ++stage, planes *= 2) {
    const auto parent =
        register_module(cat("layer", stage + 1), std::make_shared<torch::nn::Module>());
    auto& blocks = stages_.emplace_back();
    for (std::int64_t i = 0; i < variant.blocks[stage]; ++i) {
      const BlockShape shape{.name = cat("layer", stage + 1, ".", i),
                             .stage = static_cast<int>(stage),
                             .bottleneck = variant.bottleneck,
                             .in = width,
                             .planes = planes,
                             .stride = stage > 0 && i == 0 ? 2 : 1,
                             .bn_group = context.bn_group};
      blocks.push_back(
          parent->register_module(std::to_string(i), std::make_shared<ResidualBlock>(shape)));
      width = shape.out();
    }
  }
  if (context.features) return;
  fc_ = register_module("fc", std::make_shared<Linear>(width, context.num_classes));
}

std::vector<at::Tensor> ResNet::features(const at::Tensor& images, ForwardState& state) {
  ops::Fork x;
  const at::Tensor stem = ops::conv2d_images(images, *conv1_, state);
  if (small_images_) {
    x.main = x.shortcut = ops::batch_norm_relu(stem, *bn1_, state);
  } else {
    x = ops::batch_norm_relu_pool(stem, *bn1_, state);
  }
  std::vector<at::Tensor> maps;
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    for (const auto& block : stages_[stage]) x = block->forward(x, state);
    state.tap(cat("layer", stage + 1), x.main);
    maps.push_back(x.main);
  }
  return maps;
}

std::vector<FeatureLevel> ResNet::feature_levels() const {
  std::vector<FeatureLevel> levels;
  std::int64_t stride = small_images_ ? 1 : 4;
  for (const auto& stage : stages_) {
    levels.push_back({stage.back()->place().channels, stride});
    stride *= 2;
  }
  return levels;
}

std::vector<LayerSite*> ResNet::layer_sites() {
  std::vector<LayerSite*> sites;
  for (const auto& stage : stages_) {
    for (const auto& block : stage) sites.push_back(block.get());
  }
  return sites;
}

void ResNet::initialize(std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (auto& item : named_parameters()) {
    at::Tensor& parameter = item.value();
    if (parameter.dim() == 4) {
      // Kaiming normal over the outputs (He et al., ICCV 2015).
      const auto fan_out = static_cast<double>(parameter.numel() / parameter.size(1));
      fill_normal(parameter, seed, item.key(), std::sqrt(2.0 / fan_out));
    } else if (item.key().starts_with("fc.")) {
      fill_uniform(parameter, seed, item.key(),
                   1.0 / std::sqrt(static_cast<double>(fc_->weight.size(1))));
    } else {
      parameter.fill_(item.key().ends_with(".weight") ? 1.0 : 0.0);
    }
  }
  if (!zero_init_residual_) return;
  for (const auto& stage : stages_) {
    for (const auto& block : stage) block->last_norm().weight.zero_();
  }
}

ModelBuilder configure(std::string_view name, Params& params) {
  const Variant* variant = nullptr;
  for (const Variant& candidate : variants()) {
    if (candidate.name == name) variant = &candidate;
  }
  ABLATE_CHECK(variant, name);
  const std::int64_t size = params.integer("image_size", variant->small_images ? 32 : 224, 8, 4096,
                                           "side of the input in pixels");
  const bool zero = params.boolean("zero_init_residual", false,
                                   "start each block as the identity: last norm's weight 0");
  return [variant, size, zero](const ModelContext& context) -> std::shared_ptr<Model> {
    return std::make_shared<ResNet>(*variant, size, zero, context);
  };
}

const bool registered = [] {
  for (const Variant& v : variants()) {
    register_backbone(ModelInfo{
        .name = std::string(v.name),
        .summary = cat("residual network of ", v.bottleneck ? "bottleneck" : "basic",
                       " blocks for images of ", v.small_images ? 32 : 224),
        .family = "resnet",
        .semantics = 1,
        .offers = {Slot::LayerAttention, Slot::ChannelAttention},
        .image_size = v.small_images ? 32 : 224,
        .batch_norm = true,
        .example = v.name == "resnet20" ? "image_size = 16\n" : "",
        .features = Features::Stages,
        .configure = configure,
    });
  }
  return true;
}();

}  // namespace
}  // namespace ablate::models::resnet
