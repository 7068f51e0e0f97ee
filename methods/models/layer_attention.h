#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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

/// What the blocks of one group hand to later ones in one pass. Tensors are those that were
/// computed, none is copied: memory grows by one map a block.
struct LayerHistory {
  int group = -1;  ///< number of the group's first block; another one starts an empty history

  // Cache of multi-head recurrent layer attention.
  std::vector<at::Tensor> keys;    ///< (B, C) each
  std::vector<at::Tensor> values;  ///< (B, C, H, W) each
  at::Tensor retrieved;            ///< (B, C, H, W): the last O
  at::Tensor log_sum;  ///< (B, g): of the exponentials of the logits behind `retrieved`; see Recur

  // State of a recurrent cell that the group shares.
  at::Tensor hidden, cell;  ///< (B, C)

  /// Keys of all blocks, also of skipped ones, without gradient; only for shadow records.
  std::vector<at::Tensor> all_keys;
};

/// What one block retrieved with: constants in float (double in double passes).
struct Retrieval {
  int block = 0;       ///< number among Model::layer_sites()
  at::Tensor log_row;  ///< softmax form: (B, g, t), logarithms of the weights, oldest entry first
  at::Tensor logits;   ///< gated form: (B, g); the gates are their sigmoids
};

/// Filled by a pass whose ForwardState::retrievals points here, in the order of blocks. Changes
/// neither outputs nor gradients, parameters or buffers.
struct RetrievalRecord {
  /// Whether rows are those that would be if nothing was skipped: skipped blocks then compute key
  /// and query (no feature maps), and rows are over all blocks of the group so far. Else skipped
  /// blocks leave no entry, and rows are over what the cache holds.
  bool shadow = false;
  std::vector<Retrieval> retrievals;
};

/// Connects a block to earlier ones of its group. Child `layer_attention` of a block.
class LayerAttention : public torch::nn::Module {
 public:
  /// `x`: what the block puts out (on_branch(): what its residual branch puts out before it is
  /// added). `previous`: what came by the block's shortcut, projected to the shape of x, when
  /// needs_previous(). Returns what is added to x, through drop-path (on_branch(): what takes the
  /// place of x); undefined: nothing. `state.layer_history` is the group's.
  virtual at::Tensor forward(const at::Tensor& x, const at::Tensor& previous,
                             ForwardState& state) = 0;
  virtual bool on_branch() const { return false; }
  virtual bool needs_previous() const { return false; }
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
  /// What the module adds to x, after it has found the history of its group; null module or
  /// undefined: nothing.
  at::Tensor attend(const at::Tensor& x, const at::Tensor& previous, ForwardState& state) const;

 private:
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

}  // namespace ablate
