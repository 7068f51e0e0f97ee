#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "methods/models/backbone.h"

namespace ablate {

/// Feature maps of a backbone to other maps.
class Neck : public torch::nn::Module {
 public:
  virtual std::vector<at::Tensor> forward(const std::vector<at::Tensor>& maps,
                                          ForwardState& state) = 0;
  /// Draws the parameters; `name` is the module's own in the model.
  virtual void initialize(std::uint64_t seed, const std::string& name) = 0;
};

/// Maps to scores (B, classes, h, w) of each place of one of them.
class DenseHead : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const std::vector<at::Tensor>& maps, ForwardState& state) = 0;
  virtual void initialize(std::uint64_t seed, const std::string& name) = 0;
  /// Children whose shapes follow the number of classes.
  virtual std::vector<std::string> class_modules() const = 0;
};

/// What stands behind a backbone.
struct DenseParts {
  std::shared_ptr<Neck> neck{};  ///< null: the maps go on as they are
  std::shared_ptr<DenseHead> head;
  /// A second head for training alone (ForwardState::auxiliary_logits); null: none.
  std::shared_ptr<DenseHead> auxiliary{};
};

/// A dense model as its settings tell.
struct DensePlan {
  FeatureRequest features;
  std::function<DenseParts(const std::vector<FeatureLevel>& levels, const ModelContext& context)>
      build;
};

/// What the file of a head registers. With every backbone it makes one model, "<head>_<backbone>".
struct DenseHeadInfo {
  std::string_view name, summary;
  std::string_view family;  ///< its file
  int semantics;
  bool one_stride_only;  ///< reads one map of tokens, of plain vision transformers
  bool batch_norm;
  /// TOML text of settings for the small examples of backbones.
  std::string_view example;
  /// Reads the settings; a backbone of stages has other ones than one of one stride.
  DensePlan (*configure)(Params& params, Features features);
};

/// Registers a classifier that can be a backbone (ModelInfo::features), and with it the models of
/// all heads; likewise a head. In any order.
void register_backbone(const ModelInfo& info);
struct RegisterDenseHead {
  explicit RegisterDenseHead(const DenseHeadInfo& info);
};

/// Backbone, neck and heads: children `backbone`, `neck`, `decode_head`, `auxiliary_head`, as
/// mmsegmentation names them. Blocks, layer sites and everything else that methods change are those
/// of the backbone.
class DenseModel final : public Model {
 public:
  DenseModel(std::shared_ptr<Backbone> backbone, DenseParts parts);

  at::Tensor forward(const at::Tensor& images, ForwardState& state) override;
  at::Tensor forward_features(const at::Tensor& images, ForwardState& state) override;
  std::vector<Block*> blocks() override { return backbone_->blocks(); }
  std::vector<LayerSite*> layer_sites() override { return backbone_->layer_sites(); }
  bool one_stream() const override { return backbone_->one_stream(); }
  LayerNorm* final_norm() override { return backbone_->final_norm(); }
  void rescale_taps(const std::vector<double>& factors) override {
    backbone_->rescale_taps(factors);
  }
  std::vector<std::string> head_names() const override;
  std::int64_t image_size() const override { return backbone_->image_size(); }
  void initialize(std::uint64_t seed) override;
  std::vector<std::string> no_weight_decay() const override;

  const Backbone& backbone() const { return *backbone_; }

 private:
  std::vector<at::Tensor> maps(const at::Tensor& images, ForwardState& state);

  std::shared_ptr<Backbone> backbone_;
  DenseParts parts_;
};

}  // namespace ablate
