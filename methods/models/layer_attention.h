#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "methods/models/layer_history.h"
#include "methods/models/skip_mode.h"
#include "methods/models/slots.h"

namespace ablate {

/// The place of a block among those that layer attention connects.
struct LayerPlace {
  std::string name;           ///< of the block in the base model: "layer1.0", "blocks.3"
  std::int64_t channels = 0;  ///< of what the block puts out
  int stage = 0;              ///< blocks of different stages differ in shape
  bool tokens = false;        ///< (B, N, C) on a square grid after prefix tokens; else (B, C, H, W)
  std::int64_t bn_group = 0;  ///< for BatchNorms, as in ModelContext
};

/// "layer1.0.layer_attention".
std::string layer_attention_name(const LayerPlace& place);

/// Whether skipped retrievals are recorded all the same.
inline bool wants_shadow(const ForwardState& state) {
  return state.retrievals && state.retrievals->shadow;
}

/// Connects a block to earlier ones of its group. Child `layer_attention` of a block.
class LayerAttention : public torch::nn::Module {
 public:
  /// `x`: what the block puts out (on_branch(): what its residual branch puts out before it is
  /// added), normalised by input_norm() where there is one. `previous`: what remember() made of the
  /// block's input, when needs_previous(). Returns what is added to the block's output, through
  /// drop-path (on_branch(): what takes the place of x). `state.layer_history` is the group's.
  virtual at::Tensor forward(const at::Tensor& x, const at::Tensor& previous,
                             ForwardState& state) = 0;
  /// Only records what forward() would retrieve with, in place of it where the retrieval is
  /// dropped; for records that want shadows.
  virtual void shadow(const at::Tensor&, ForwardState&) {}
  /// Stands before the addition of a residual branch, not after the block.
  virtual bool on_branch() const { return false; }
  /// Adds nothing to the block's output: forward() is still called while it keeps keys.
  bool adds_nothing() const { return skip_ == SkipMode::Drop || skip_ == SkipMode::KeepKeys; }
  /// Of tokens.
  virtual const LayerNorm* input_norm() const { return nullptr; }
  virtual bool needs_previous() const { return false; }
  /// The block's input, in the shape of its output (projected as its shortcut is), as forward()
  /// wants it; called before anything of the block has run.
  virtual at::Tensor remember(const at::Tensor& input, const ForwardState&) const { return input; }
  /// Probability that a sample drops in training what is added.
  virtual double drop_path() const { return 0.0; }
  /// Draws every parameter as Model::initialize does; `name` is the module's own in the model.
  virtual void initialize(std::uint64_t seed, const std::string& name) = 0;

  /// Whether the retrieval can be skipped so.
  virtual bool can_skip(SkipMode mode) const { return mode == SkipMode::None; }
  SkipMode skip() const { return skip_; }
  /// Parameters that are not used any more lose their gradient and leave training, so that neither
  /// decay nor momentum moves them; those that are used again come back.
  void set_skip(SkipMode mode);
  /// Deletes what the present mode does not use; the mode stays. False: nothing to delete.
  bool delete_unused();
  bool reduced() const { return reduced_; }

  /// Numbers among Model::layer_sites(); set when attached.
  int block() const { return block_; }
  int group() const { return group_; }
  void set_numbers(int block, int group) {
    block_ = block;
    group_ = group;
  }

 protected:
  /// Names of own parameters and children that forward() does not touch in this mode.
  virtual std::vector<std::string> unused(SkipMode) const { return {}; }
  /// Called after these have been unregistered, to drop typed members.
  virtual void forget(const std::vector<std::string>&) {}

 private:
  SkipMode skip_ = SkipMode::None;
  bool reduced_ = false;
  int block_ = -1, group_ = -1;
};

/// A block with the slot "layer attention", or "channel attention" (on_branch()).
class LayerSite : public torch::nn::Module {
 public:
  explicit LayerSite(LayerPlace place) : place_(std::move(place)) {}

  const LayerPlace& place() const { return place_; }
  LayerAttention* layer_attention() const { return layer_attention_.get(); }
  /// Null removes it. Only the Surgeon calls this.
  void set_layer_attention(std::shared_ptr<LayerAttention> module);

 protected:
  /// The module's forward(), for which it prepares the history of its group.
  at::Tensor attend(const at::Tensor& x, const at::Tensor& previous, ForwardState& state) const;
  /// The module's shadow().
  void shadow(const at::Tensor& x, ForwardState& state) const;
  /// Factor of what the module adds, (B, 1, 1, 1) or (B, 1, 1) as x needs it: 0 or 1 / keep in
  /// training, a function of sample and block; undefined: 1.
  at::Tensor drop_scale(const at::Tensor& x, const ForwardState& state) const;

 private:
  void begin_history(ForwardState& state) const;

  LayerPlace place_;
  std::shared_ptr<LayerAttention> layer_attention_;
};

/// How layer attention is made again from a recorded edit.
struct LayerAttentionInfo {
  static constexpr std::string_view kind = "layer attention";
  std::string_view name;
  /// One module for each place, in order; places of one group are alike. Parameters that a group
  /// shares are children of the first.
  std::vector<std::shared_ptr<LayerAttention>> (*make)(Params& params,
                                                       const std::vector<LayerPlace>& places);
};

/// For LayerAttentionInfo::make: a module of its own for each place.
template <typename Module, typename... Settings>
std::vector<std::shared_ptr<LayerAttention>> module_for_each(const std::vector<LayerPlace>& places,
                                                             const Settings&... settings) {
  std::vector<std::shared_ptr<LayerAttention>> modules;
  for (const LayerPlace& place : places) {
    modules.push_back(std::make_shared<Module>(place, settings...));
  }
  return modules;
}

}  // namespace ablate
