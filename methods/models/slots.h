#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "methods/models/channels.h"
#include "runner/core/registry.h"
#include "runner/core/value.h"
#include "runner/torch/torch.h"

namespace ablate {

class Communicator;
class FusedContext;
class GroupBatchNorm2d;
class LayerNorm;
class Params;
struct LayerHistory;
struct RetrievalRecord;

/// Named places of a model that a method can fill.
enum class Slot {
  TokenMixer,
  ResidualGains,
  TokenReducer,
  LayerAttention,
  ChannelAttention,
  ChannelGroups
};

std::string_view slot_name(Slot slot);

/// Where tokens of a batch go when groups of them become one, as fused operations take it: N tokens
/// in N' groups, on a CUDA device, without gradient. See kernels::TokenGroups and TokenWeights.
struct TokenGroups {
  at::Tensor positions{};           ///< (B, N) int32: the group of each token
  at::Tensor offsets{};             ///< (B, N' + 1) int32: where the members of each group begin
  at::Tensor members{};             ///< (B, N) int32
  at::Tensor shares{};              ///< (B, N) float: weight of each token in its group
  at::Tensor sizes{}, log_sizes{};  ///< (B, N') float: patches in each group, and the logarithm

  bool defined() const { return positions.defined(); }
  std::int64_t count() const { return sizes.size(1); }  ///< N'
};

/// The residual stream and the branch output not yet added to it, so that the add, drop-path and
/// the LayerNorm that follows can be one kernel:
///
///   value() = skip * base + scale * pending
///
/// base, pending: (B, N, C). `scale` is per sample, (B, 1, 1), or common, (1, 1, 1): drop-path's 0
/// or 1/keep times the branch gain; `skip` is (1, 1, 1). Undefined gains are 1. `pending` may be
/// undefined: nothing is pending.
struct TokenStream {
  at::Tensor base{}, pending{}, scale{}, skip{};
  /// Bias of the Linear that made `pending`, when the join has to add up its gradient
  /// (ops::BiasGradient::Consumer); undefined otherwise.
  at::Tensor pending_bias{};
  /// Set by token reducers in fused passes: the groups whose weighted means the next join takes, as
  /// a part of itself. value() is that of the single tokens.
  TokenGroups groups{};
  /// Likewise: how many tokens, from the front, the next join lets through; 0: all of them.
  std::int64_t first = 0;

  at::Tensor value() const;
  /// The stream whose value is `gain` times this one's.
  TokenStream amplified(double gain) const;
};

/// A common factor as a TokenStream takes it, in the type and on the device of `like`; undefined
/// for 1.
at::Tensor common_gain(double factor, const at::Tensor& like);

/// Factors of one residual join, as in TokenStream.
struct JoinNumbers {
  at::Tensor scale{}, skip{};
  at::Tensor branch{};  ///< () double: the gain within `scale`, of joins whose gains move
};

/// What lives for one forward pass: where stochastic layers take their numbers from, and what slots
/// hand to later slots. Made anew for each pass.
struct ForwardState {
  // Stochastic layers: a number is a function of (seed, module name, step, position of the sample
  // in the global batch), so that ranks and micro-batches do not change it.
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  /// The same, () int64 on the device, where steps go on without the host (captured graphs).
  at::Tensor device_step;
  std::int64_t first_position = 0;  ///< of row 0 of this pass in the global batch
  std::int64_t global_batch = 0;    ///< images of the step on all ranks; 0: this pass is all of it
  /// The ranks that share each BatchNorm group with this one (make_group_communicator of
  /// batch_norm.h); null when every group lies in one pass.
  Communicator* bn_communicator = nullptr;

  // Token reduction (Bolya et al., "Token Merging", ICLR 2023).
  std::int64_t protected_tokens = 0;    ///< leading tokens never merged: class, then distillation
  bool proportional_attention = false;  ///< mixers add log(size) to the logits of their keys
  at::Tensor token_sizes;               ///< (B, N, 1) patches in each token; undefined: all ones
  at::Tensor log_sizes;        ///< (B, N): their logarithm, where a reducer has it; else undefined
  bool track_sources = false;  ///< whether reducers keep `sources`
  at::Tensor sources;  ///< (B, N0) int64: token that holds each original token; undefined: identity

  // Keys, only when a slot of the same block asks for them before the mixer runs.
  bool want_keys = false;
  at::Tensor keys;  ///< (B, H, N, d), before any scaling
  /// Whether `carried_keys` are kept; set by reducers that need them.
  bool carry_keys = false;
  /// (B, N, d): keys of the last attention that will stay, averaged over heads. Reducers merge them
  /// with the tokens, so that blocks without attention, which mix no tokens, can compare them.
  at::Tensor carried_keys;
  // Attention of the class token, only when a slot of the same block asks before the mixer runs.
  bool want_class_attention = false;
  at::Tensor class_attention;  ///< (B, N): its softmax row, averaged over heads
  /// (B, N) of 0 and 1, with a gradient: tokens that a model under training treats as if they were
  /// gone. Mixers that mask() let others look only at those with 1, everybody also at itself (Rao
  /// et al., DynamicViT, NeurIPS 2021, eq. 11). Undefined: all are there.
  at::Tensor token_mask;
  /// What token reducers under training would add to the loss: a scalar each, averaged over the
  /// pass.
  std::vector<at::Tensor> reducer_losses;
  /// The norm that follows the reducer that is running, in the same block.
  const LayerNorm* following_norm = nullptr;

  /// Of the group of blocks whose layer attention ran last (layer_attention.h).
  std::shared_ptr<LayerHistory> layer_history;
  /// Set: layer attention leaves there what it retrieved with.
  RetrievalRecord* retrievals = nullptr;

  /// Factors of joins ("blocks.3.mlp") that were computed ahead of the pass, where they change from
  /// step to step without the host (captured graphs). Other joins compute their own.
  std::map<std::string, JoinNumbers> join_numbers;

  /// Set: BatchNorms in training add their share of the running statistics to these (2, C) doubles
  /// instead of keeping it (DeviceNorms), so that a captured step needs no host.
  const std::map<const GroupBatchNorm2d*, at::Tensor>* norm_shares = nullptr;

  /// Rows of the map whose places are the tokens behind the protected ones; 0: the map is square.
  std::int64_t map_height = 0;
  /// Scores (B, K, h, w) of the auxiliary head of a dense model under training; else undefined.
  at::Tensor auxiliary_logits;

  /// Gates of channels, (channels), computed by the first group that has one; see channels.h.
  std::vector<at::Tensor> seat_gates;
  /// Gates that take the place of those.
  std::map<const ChannelGroup*, at::Tensor> channel_gates;
  ChannelObserver* channel_observer = nullptr;

  /// Set: operations take their fused form (ops.h).
  FusedContext* fused = nullptr;
  /// The bias whose gradient the consumer of the last Linear has to add up.
  at::Tensor deferred_bias;

  /// Intermediate tensors to keep, by module name ("blocks.3"); filled for the names present.
  std::map<std::string, at::Tensor> taps;
  /// Keeps `tensor` when somebody asked for it.
  void tap(const std::string& name, const at::Tensor& tensor);
  /// What is said of tokens holds no longer: what follows has others.
  void forget_tokens();
};

/// Mixes information between tokens: (B, N, C) -> (B, N, C). Child `attn` of a block.
class TokenMixer : public torch::nn::Module, public ChannelOwner {
 public:
  /// Writes state.keys when state.want_keys, state.class_attention when that is wanted; honours
  /// state.token_sizes when state.proportional_attention.
  virtual at::Tensor forward(const at::Tensor& tokens, ForwardState& state) = 0;
  /// Whether state.keys can be had: only softmax-like mixers have keys that mean anything.
  virtual bool provides_keys() const = 0;
  /// Whether state.class_attention can be had, of the token in front.
  virtual bool provides_class_attention() const { return false; }
  /// Whether it honours state.token_mask.
  virtual bool masks() const { return false; }
  /// Multiplies what the mixer writes to the residual stream by a constant, in its weights.
  virtual void scale_output(double factor) = 0;
};

/// What a token reducer needs of mixers.
enum class KeyNeed {
  None,
  OwnBlock,        ///< ForwardState::keys, of the mixer of the same block
  Carried,         ///< ForwardState::carried_keys
  ClassAttention,  ///< ForwardState::class_attention, of the mixer of the same block
};

/// Whether there is something to reduce by only when the mixer of the same block has run.
constexpr bool needs_own_mixer(KeyNeed need) {
  return need == KeyNeed::OwnBlock || need == KeyNeed::ClassAttention;
}

/// Where in its block a token reducer stands.
enum class ReducerPlace {
  BeforeMlp,
  BeforeMixer,  ///< in front of norm1, or of what is left where the mixer has gone
};

/// Shortens the sequence, by default between mixer and MLP: a stream of N tokens becomes one of N'.
/// Child `reducer` of a block.
class TokenReducer : public torch::nn::Module {
 public:
  /// Called once a pass, before the first block: declares needs in `state`.
  virtual void begin(ForwardState& state) = 0;
  /// Reads state.keys or state.carried_keys, updates state.token_sizes, state.sources and, when
  /// there are any, state.carried_keys. The stream's branch may be left pending.
  virtual TokenStream forward(TokenStream stream, ForwardState& state) = 0;
  virtual KeyNeed key_need() const = 0;
  virtual ReducerPlace place() const { return ReducerPlace::BeforeMlp; }

  /// Its name in the model ("blocks.3.reducer"), which keys random numbers. Written by the block.
  std::string qualified_name;
};

/// How a token reducer is made again from a recorded edit.
struct TokenReducerInfo {
  static constexpr std::string_view kind = "token reducer";
  std::string_view name;
  std::shared_ptr<TokenReducer> (*make)(Params& params);
};

}  // namespace ablate
