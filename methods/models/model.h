#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "methods/models/block.h"
#include "methods/models/channel_gates.h"
#include "methods/models/feature_request.h"
#include "methods/models/layer_attention.h"
#include "methods/models/slots.h"
#include "runner/core/registry.h"

namespace ablate {

/// What the run decides about a model besides its own settings.
struct ModelContext {
  std::int64_t num_classes = 0;
  std::int64_t bn_group =
      0;  ///< consecutive images of the global batch that share BatchNorm statistics
  /// Set: a backbone (backbone.h) is wanted, which gives feature maps and has no classifier.
  std::optional<FeatureRequest> features{};
};

/// Images in, logits out, with named parts and slots; knows no method.
///
/// Dense models (ModelInfo::dense) give scores for each place of a map, (B, num_classes, h, w), at
/// the stride of their head, of images of any size in evaluation; see dense.h.
class Model : public torch::nn::Module {
 public:
  /// images (B, 3, S, S) -> logits (B, num_classes). A distilled model in training mode returns
  /// (B, 2, num_classes): class head, distillation head; their mean in evaluation mode.
  virtual at::Tensor forward(const at::Tensor& images, ForwardState& state) = 0;
  /// The input of the classifier head for the class token or pooled features, (B, C). Of dense
  /// models: the means of the last feature map over its places.
  virtual at::Tensor forward_features(const at::Tensor& images, ForwardState& state) = 0;

  /// Transformer blocks in order of execution; empty for convolutional models.
  virtual std::vector<Block*> blocks() { return {}; }

  /// Blocks that layer attention can connect, in order of execution.
  virtual std::vector<LayerSite*> layer_sites() { return {}; }

  /// Whether one residual stream runs through all blocks; else there are layers between stages.
  virtual bool one_stream() const { return true; }

  /// Norm of the residual stream after the last block; null without one.
  virtual LayerNorm* final_norm() { return nullptr; }

  /// Multiplies what a dense model reads of the residual stream after each block by these factors,
  /// by which the stream itself has been divided (fold.h).
  virtual void rescale_taps(const std::vector<double>&) {}

  /// Modules whose shapes follow the number of classes.
  virtual std::vector<std::string> head_names() const = 0;

  /// Side of the square input.
  virtual std::int64_t image_size() const = 0;

  /// Draws every parameter from RandomStream(seed, Purpose::ParameterInit, hash64(its name)): equal
  /// seeds give shared parameters equal values whatever a method does to the rest.
  virtual void initialize(std::uint64_t seed) = 0;

  /// Names of parameters (besides biases and other one-dimensional ones) that take no weight decay.
  virtual std::vector<std::string> no_weight_decay() const { return {}; }

  /// Decides which channels take part; null while nothing is being selected.
  ChannelGates* channel_gates() const { return channel_gates_.get(); }
  /// Null removes it. Only the Surgeon calls it.
  void set_channel_gates(std::shared_ptr<ChannelGates> gates);
  /// Of parameters that training treats differently, by name.
  std::map<std::string, ParameterSettings> parameter_settings() const;

 private:
  std::shared_ptr<ChannelGates> channel_gates_;
};

/// Builds an uninitialised model; cheap enough to check a spec only when it is not called.
using ModelBuilder = std::function<std::shared_ptr<Model>(const ModelContext&)>;

/// One named model; a family's file registers several.
struct ModelInfo {
  static constexpr std::string_view kind = "model";
  std::string name, summary;
  std::string_view family;  ///< what its file holds
  int semantics;            ///< raised when the same spec would compute something else
  std::vector<Slot> offers;
  /// Why it does not offer slots that others have; shown when a method needs one. May be empty.
  std::string_view withheld{};
  std::int64_t image_size;
  /// Has a distillation head by its name; a setting `distilled = true` gives others one.
  bool distilled = false;
  bool batch_norm = false;  ///< has GroupBatchNorm2d: batches must be whole groups of bn_group
  /// TOML text of settings at which it trains in seconds on images of 16 x 16; the conformance
  /// tests exercise every model that gives some, and each family has one that does.
  std::string_view example{};
  bool dense = false;  ///< scores of classes for each place of a map, instead of one an image
  Features features = Features::None;  ///< whether it can be the backbone of a dense model
  ModelBuilder (*configure)(std::string_view name, Params& params);
};

}  // namespace ablate
