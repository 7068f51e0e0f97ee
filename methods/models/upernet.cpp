#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/dense.h"
#include "methods/models/dense_layers.h"
#include "methods/models/neck.h"
#include "methods/models/ops_grid.h"
#include "methods/models/ops_resize.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

// UPerNet (Xiao et al., ECCV 2018) with mmsegmentation's names, settings and auxiliary head.

namespace ablate::models::upernet {
namespace {

struct Settings {
  std::int64_t channels = 512;
  std::vector<std::int64_t> pool_scales{1, 2, 3, 6};
  double dropout = 0.1;
  std::string neck = "none";
  std::int64_t auxiliary_channels = 256;  ///< 0: no auxiliary head
  std::int64_t auxiliary_level = -1;
};

template <typename Child>
std::shared_ptr<Child> add_to_list(torch::nn::Module& list, std::size_t number,
                                   std::shared_ptr<Child> child) {
  return list.register_module(std::to_string(number), std::move(child));
}

/// The last map beside means of it over coarser and coarser cells (Zhao et al., "Pyramid Scene
/// Parsing Network", CVPR 2017), joined from the coarsest level to the finest (Lin et al., "Feature
/// Pyramid Networks", CVPR 2017), and all levels beside each other.
class UPerHead final : public DenseHead {
 public:
  UPerHead(const std::vector<FeatureLevel>& levels, const Settings& settings,
           const ModelContext& context);

  at::Tensor forward(const std::vector<at::Tensor>& maps, ForwardState& state) override;
  void initialize(std::uint64_t seed, const std::string& name) override {
    initialize_dense(*this, seed, name);
  }
  std::vector<std::string> class_modules() const override { return {"conv_seg"}; }

 private:
  at::Tensor pool_pyramid(const at::Tensor& map, ForwardState& state) const;
  at::Tensor fuse(std::vector<at::Tensor> laterals, ForwardState& state) const;

  std::vector<std::int64_t> pool_scales_;
  double dropout_;
  std::vector<std::shared_ptr<ConvNormRelu>> pooled_, laterals_, smooth_;
  std::shared_ptr<ConvNormRelu> bottleneck_, fusion_;
  std::shared_ptr<Linear> conv_seg_;
};

UPerHead::UPerHead(const std::vector<FeatureLevel>& levels, const Settings& s,
                   const ModelContext& context)
    : pool_scales_(s.pool_scales), dropout_(s.dropout) {
  const auto block = [&](std::int64_t in, std::int64_t kernel) {
    return std::make_shared<ConvNormRelu>(in, s.channels, kernel, context.bn_group);
  };
  const auto pools = register_module("psp_modules", std::make_shared<torch::nn::Module>());
  const std::int64_t last = levels.back().channels;
  for (std::size_t i = 0; i < pool_scales_.size(); ++i) {
    const auto place = add_to_list(*pools, i, std::make_shared<torch::nn::Module>());
    pooled_.push_back(place->register_module("1", block(last, 1)));
  }
  const auto scales = static_cast<std::int64_t>(pool_scales_.size());
  bottleneck_ = register_module("bottleneck", block(last + scales * s.channels, 3));
  const auto laterals = register_module("lateral_convs", std::make_shared<torch::nn::Module>());
  const auto smooth = register_module("fpn_convs", std::make_shared<torch::nn::Module>());
  for (std::size_t i = 0; i + 1 < levels.size(); ++i) {
    laterals_.push_back(add_to_list(*laterals, i, block(levels[i].channels, 1)));
    smooth_.push_back(add_to_list(*smooth, i, block(s.channels, 3)));
  }
  const auto count = static_cast<std::int64_t>(levels.size());
  fusion_ = register_module("fpn_bottleneck", block(count * s.channels, 3));
  conv_seg_ =
      register_module("conv_seg", std::make_shared<Linear>(s.channels, context.num_classes));
}

at::Tensor UPerHead::pool_pyramid(const at::Tensor& map, ForwardState& state) const {
  std::vector<at::Tensor> parts{ops::as_activation(map, state)};
  for (std::size_t i = 0; i < pooled_.size(); ++i) {
    const at::Tensor cells =
        pooled_[i]->forward(ops::average_to(parts[0], pool_scales_[i], pool_scales_[i]), state);
    parts.push_back(ops::resize_bilinear(cells, map.size(2), map.size(3)));
  }
  return bottleneck_->forward(at::cat(parts, 1), state);
}

at::Tensor UPerHead::fuse(std::vector<at::Tensor> laterals, ForwardState& state) const {
  for (std::size_t i = laterals.size() - 1; i > 0; --i) {
    const at::Tensor& finer = laterals[i - 1];
    laterals[i - 1] = finer + ops::resize_bilinear(laterals[i], finer.size(2), finer.size(3));
  }
  std::vector<at::Tensor> levels;
  for (std::size_t i = 0; i < laterals.size(); ++i) {
    const bool smoothed = i < smooth_.size();
    const at::Tensor level = smoothed ? smooth_[i]->forward(laterals[i], state) : laterals[i];
    levels.push_back(ops::resize_bilinear(level, laterals[0].size(2), laterals[0].size(3)));
  }
  return fusion_->forward(at::cat(levels, 1), state);
}

at::Tensor UPerHead::forward(const std::vector<at::Tensor>& maps, ForwardState& state) {
  std::vector<at::Tensor> laterals;
  for (std::size_t i = 0; i < laterals_.size(); ++i) {
    laterals.push_back(laterals_[i]->forward(maps.at(i), state));
  }
  laterals.push_back(pool_pyramid(maps.back(), state));
  const at::Tensor fused = fuse(std::move(laterals), state);
  const double rate = is_training() ? dropout_ : 0.0;
  return classify_places(drop_channels(fused, rate, "decode_head.dropout", state), *conv_seg_,
                         state);
}

/// One convolution and a classifier on one level (Long et al., CVPR 2015, as mmsegmentation takes
/// it for the auxiliary loss).
class FcnHead final : public DenseHead {
 public:
  FcnHead(const FeatureLevel& level, std::size_t index, const Settings& s,
          const ModelContext& context)
      : index_(index), dropout_(s.dropout) {
    const auto convs = register_module("convs", std::make_shared<torch::nn::Module>());
    conv_ = add_to_list(
        *convs, 0,
        std::make_shared<ConvNormRelu>(level.channels, s.auxiliary_channels, 3, context.bn_group));
    conv_seg_ = register_module(
        "conv_seg", std::make_shared<Linear>(s.auxiliary_channels, context.num_classes));
  }

  at::Tensor forward(const std::vector<at::Tensor>& maps, ForwardState& state) override {
    const at::Tensor map = conv_->forward(maps.at(index_), state);
    const double rate = is_training() ? dropout_ : 0.0;
    return classify_places(drop_channels(map, rate, "auxiliary_head.dropout", state), *conv_seg_,
                           state);
  }
  void initialize(std::uint64_t seed, const std::string& name) override {
    initialize_dense(*this, seed, name);
  }
  std::vector<std::string> class_modules() const override { return {"conv_seg"}; }

 private:
  std::size_t index_;
  double dropout_;
  std::shared_ptr<ConvNormRelu> conv_;
  std::shared_ptr<Linear> conv_seg_;
};

constexpr std::int64_t kWidest = 65'536, kMostLevels = 64;

/// Of backbones with one stride: which blocks are read, and what makes levels of them.
void read_taps(Params& params, Settings& s, FeatureRequest& request) {
  s.neck = params.choice("neck", "none", {"none", "pyramid", "multilevel"},
                         "maps of four sizes by transposed convolutions, or by interpolation "
                         "between convolutions; none: all of one size");
  request.taps =
      s.neck == "pyramid" ? FeatureRequest::Taps::Thirds : FeatureRequest::Taps::Quarters;
  request.blocks =
      params.integers("out_indices", {}, 0, 10'000,
                      "blocks whose output is read; empty: each quarter of the depth, with neck = "
                      "\"pyramid\" a third, the half, two thirds and all of it");
  if (!std::ranges::is_sorted(request.blocks, std::less_equal<>())) {
    params.fail("out_indices", "must rise");
  }
  if (s.neck != "none" && !request.blocks.empty() && request.blocks.size() != 4) {
    params.fail("out_indices", "a neck takes four blocks");
  }
  request.final_norm =
      params.boolean("final_norm", false, "the final norm on the output of the last block");
}

void read_settings(Params& params, Settings& s) {
  s.channels = params.integer("channels", s.channels, 1, kWidest, "width of the head");
  s.pool_scales = params.integers("pool_scales", s.pool_scales, 1, 512,
                                  "cells along a side of the map, of each level of pooling");
  s.dropout = params.number("dropout", s.dropout, 0.0, 0.99,
                            "share of channels dropped in front of the classifiers");
  s.auxiliary_channels = params.integer("auxiliary_channels", s.auxiliary_channels, 0, kWidest,
                                        "width of the head that helps training; 0: there is none");
  s.auxiliary_level =
      params.integer("auxiliary_level", s.auxiliary_level, -1, kMostLevels,
                     "level that it reads; -1: the last of one size, else the last but one");
}

std::vector<FeatureLevel> levels_behind(const std::vector<FeatureLevel>& levels,
                                        const Settings& s) {
  return s.neck == "none" ? levels : neck_levels(levels.front());
}

std::size_t auxiliary_level(const std::vector<FeatureLevel>& levels, const Settings& s) {
  const std::size_t last = levels.size() - 1;
  if (s.auxiliary_level < 0) {
    const bool pyramid = levels.front().stride != levels.back().stride;
    return pyramid && last > 0 ? last - 1 : last;
  }
  if (static_cast<std::size_t>(s.auxiliary_level) <= last) {
    return static_cast<std::size_t>(s.auxiliary_level);
  }
  throw SpecError(cat("model.auxiliary_level: there is no level ", s.auxiliary_level,
                      "; levels are 0 to ", last));
}

DenseParts build(const std::vector<FeatureLevel>& of_backbone, const Settings& s,
                 const ModelContext& context) {
  const std::vector<FeatureLevel> levels = levels_behind(of_backbone, s);
  const std::int64_t channels = of_backbone.front().channels;
  DenseParts parts{.head = std::make_shared<UPerHead>(levels, s, context)};
  if (s.neck == "pyramid") parts.neck = make_pyramid_neck(channels, context.bn_group);
  if (s.neck == "multilevel") parts.neck = make_multi_level_neck(channels);
  if (s.auxiliary_channels > 0) {
    const std::size_t level = auxiliary_level(levels, s);
    parts.auxiliary = std::make_shared<FcnHead>(levels[level], level, s, context);
  }
  return parts;
}

DensePlan configure(Params& params, Features features) {
  Settings settings;
  FeatureRequest request;
  if (features == Features::OneStride) read_taps(params, settings, request);
  read_settings(params, settings);
  return {request,
          [settings](const std::vector<FeatureLevel>& levels, const ModelContext& context) {
            return build(levels, settings, context);
          }};
}

const RegisterDenseHead added{{
    .name = "upernet",
    .summary = "UPerNet",
    .family = "upernet",
    .semantics = 1,
    .one_stride_only = false,
    .batch_norm = true,
    .example = "channels = 16\npool_scales = [1, 2]\nauxiliary_channels = 8\n",
    .configure = configure,
}};

}  // namespace
}  // namespace ablate::models::upernet
