#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

struct ForwardState;
class ChannelGates;
class Reweight;

// The slot "channel groups": hidden channels of a block that can be removed without touching the
// width of the residual stream. Everything of a network that belongs to one channel falls with it:
// the rows of the layers that write it, the columns of the layer that reads it, the channels of
// what lies between.

enum class ChannelRole {
  QueryKey,  ///< queries and keys of an attention, whose inner product ties them
  Value,     ///< values of an attention, up to the projection that reads them
  Hidden,    ///< hidden layer of an MLP
};

/// Channels of one place; channel head * width + i is the i-th of a head.
struct ChannelGroup {
  std::string name;  ///< unique in its block: "qk", "v", "mlp"
  ChannelRole role;
  std::int64_t heads;             ///< 1 for Hidden
  std::int64_t width;             ///< of a head, now
  std::int64_t born_width;        ///< of a head, in the base model: what scales a softmax
  bool linear_attention = false;  ///< of an attention without softmax
  /// Value groups: what the output passes before it is read (child of the owner); null: nothing.
  std::shared_ptr<Reweight> reweight{};
  // Where its gate comes from while channels are being selected; null: it has none.
  ChannelGates* gates = nullptr;
  std::size_t seat = 0;  ///< among those of `gates`

  std::int64_t channels() const { return heads * width; }
  bool cut() const { return width != born_width; }
};

/// Replaces parameters by slices of themselves and notes how, so that what follows parameters
/// (moments, averages) can be sliced alike.
class ParameterSlicer {
 public:
  struct Slice {
    at::Tensor parameter;  ///< the module's own tensor
    int axis;
    std::vector<std::int64_t> index;
  };

  /// parameter <- parameter.index_select(axis, index), in place of the module's tensor; repeats are
  /// allowed (a kernel that heads have shared becomes one of each). Its gradient is forgotten.
  void slice(at::Tensor& parameter, int axis, const std::vector<std::int64_t>& index);

  const std::vector<Slice>& slices() const { return slices_; }

 private:
  std::vector<Slice> slices_;
};

/// A module with channel groups: a token mixer or the MLP of a block.
class ChannelOwner {
 public:
  virtual ~ChannelOwner() = default;

  /// Always in the same order; they live as long as the owner.
  virtual std::vector<ChannelGroup*> channel_groups() { return {}; }
  /// Weights whose rows write the channels, (channels, in) each: for QueryKey those of the queries,
  /// then of the keys.
  virtual std::vector<at::Tensor> writers(const ChannelGroup& group) const;
  /// Weight whose columns read the channels, (out, channels); undefined for QueryKey.
  virtual at::Tensor reader(const ChannelGroup& group) const;
  /// Keeps these channels, ascending, as many for each head (heads * new width in all; which of
  /// them become one head is only a matter of order), and sets the width. A softmax keeps the scale
  /// of the born width. The reweight module is not the owner's business.
  virtual void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                             ParameterSlicer& slicer);
};

/// Which tensor of a group an observer is shown.
enum class ChannelOperand { Query, Key, Output };

/// Told about channel groups by a forward pass (ForwardState::channel_observer).
class ChannelObserver {
 public:
  virtual ~ChannelObserver() = default;
  /// x (.., channels), behind its gate. QueryKey: queries and keys as they enter their product (of
  /// linear attention: after the focusing map). Others: what the next layer reads, before
  /// reweighting.
  virtual void see(const ChannelGroup& group, ChannelOperand operand, const at::Tensor& x) {
    static_cast<void>(group), static_cast<void>(operand), static_cast<void>(x);
  }
  /// This pass spends `macs` multiply-accumulates for each channel of `group`; with `other`, for
  /// each channel of the one and each of the other.
  virtual void cost(const ChannelGroup& group, const ChannelGroup* other, double macs) {
    static_cast<void>(group), static_cast<void>(other), static_cast<void>(macs);
  }
};

// What owners call in their forward passes; each does nothing while nobody selects or observes.

/// x (.., channels) times the gate of the group. For QueryKey of a softmax attention on the queries
/// (the keys need it not), of a linear attention on both before the norms of the focusing map, so
/// that masked and removed channels are the same.
at::Tensor gate_channels(const at::Tensor& x, const ChannelGroup& group, ForwardState& state);
/// The gate as (channels), undefined for none: for owners that keep the operands packed.
at::Tensor channel_gate(const ChannelGroup& group, ForwardState& state);
/// Shows queries or keys to the observer.
void observe_channels(const at::Tensor& x, const ChannelGroup& group, ChannelOperand operand,
                      const ForwardState& state);
/// What the output of a Value or Hidden group passes on its way to the reader: gate, observer,
/// reweighting. x (B, N, channels); for windows B is their number.
at::Tensor pass_channels(const at::Tensor& x, const ChannelGroup& group, ForwardState& state);
/// Tells the observer what a pass spends; see ChannelObserver::cost.
void spend_on_channels(const ChannelGroup& group, double macs, const ForwardState& state,
                       const ChannelGroup* other = nullptr);

}  // namespace ablate
