#pragma once

#include <memory>
#include <string>

#include "methods/models/gain_mask.h"
#include "methods/models/layer_attention.h"
#include "methods/models/layers.h"
#include "methods/models/slots.h"

namespace ablate {

/// Gains of one residual join: stream <- skip * stream + branch * drop_path(f(norm(stream))).
/// branch = 0 skips the computation of f altogether; (1, 1) is the plain block bit for bit.
///
/// With a mask and 0 < branch < 1, training draws each number that shares a place of the mask as
/// the plain join (1, 1) with probability `branch` and as (without_branch(), 0) else, which makes
/// (skip, branch) the mean of the gains; evaluation uses that mean.
struct ResidualGains {
  double skip = 1.0;
  double branch = 1.0;
  GainMask mask = GainMask::None;
  /// The identity's gain where the branch is masked.
  double without_branch() const { return (skip - branch) / (1.0 - branch); }
  bool operator==(const ResidualGains&) const = default;
};

/// Linear - GELU (exact erf) - Linear, children fc1 and fc2. Channel group: "mlp".
class Mlp : public torch::nn::Module, public ChannelOwner {
 public:
  Mlp(std::int64_t dim, std::int64_t hidden_dim);
  at::Tensor forward(const at::Tensor& x, ForwardState& state);

  std::vector<ChannelGroup*> channel_groups() override { return {&hidden_}; }
  std::vector<at::Tensor> writers(const ChannelGroup&) const override { return {fc1->weight}; }
  at::Tensor reader(const ChannelGroup&) const override { return fc2->weight; }
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> fc1, fc2;

 private:
  ChannelGroup hidden_;
};

struct BlockOptions {
  std::int64_t dim = 0;
  std::int64_t num_heads = 0;
  double mlp_ratio = 4.0;
  double drop_path = 0.0;
  double norm_eps = 1e-6;
};

/// Pre-norm transformer block with timm's parameter names (norm1, attn, norm2, mlp) and the slots
/// token mixer, residual gains, token reducer and layer attention:
///
///   x <- skip x + branch DropPath(attn(norm1(x)))
///   x <- reducer(x)
///   x <- x + DropPath(mlp(norm2(x)))
///   x <- x + layer_attention(x)
///
/// or with the reducer in front of all. A reducer that needs the mixer of its block is passed by
/// while that is not run (branch = 0).
/// Each slot has one setter, which swaps the registered child and the typed member together; only
/// the Surgeon calls them.
class Block : public LayerSite {
 public:
  /// `name` is the qualified name in the base model ("blocks.3"): it keys the drop-path numbers.
  Block(const BlockOptions& options, std::string name, std::shared_ptr<TokenMixer> mixer);

  TokenStream forward(TokenStream stream, ForwardState& state);

  /// Null after removal.
  TokenMixer* mixer() const { return mixer_.get(); }
  /// Whether there are keys, now and later: a mixer that has them and stays.
  bool keeps_keys() const { return mixer_ && mixer_->provides_keys() && !retiring_; }
  void set_mixer(std::shared_ptr<TokenMixer> mixer);
  /// Deletes norm1 and the mixer and sets the branch gain to 0; the skip gain keeps saying what the
  /// identity path is multiplied by.
  void remove_mixer();

  const ResidualGains& attention_gains() const { return attention_gains_; }
  void set_attention_gains(ResidualGains gains) { attention_gains_ = gains; }

  /// A block whose mixer is going to be removed: reducers keep away from it, so that nothing
  /// changes at the moment of removal.
  bool retiring() const { return retiring_; }
  void set_retiring(bool retiring) { retiring_ = retiring; }

  TokenReducer* reducer() const { return reducer_.get(); }
  /// Null removes it.
  void set_reducer(std::shared_ptr<TokenReducer> reducer);

  const std::string& block_name() const { return name_; }
  /// Probability that a sample drops a branch in training.
  double drop_path() const { return drop_path_; }

  /// A channel group of the mixer or the MLP, and whose it is.
  struct OwnedChannels {
    ChannelOwner* owner;
    ChannelGroup* group;
  };
  std::vector<OwnedChannels> channel_groups() const;

  LayerNorm* norm1() const { return norm1_.get(); }  ///< null after removal
  LayerNorm& norm2() const { return *norm2_; }
  Mlp& mlp() const { return *mlp_; }

 private:
  TokenStream reduce(ReducerPlace place, TokenStream stream, ForwardState& state);
  TokenStream mix(TokenStream stream, ForwardState& state);
  TokenStream connect(const TokenStream& stream, const at::Tensor& previous, ForwardState& state);
  bool draws_gains() const;
  TokenStream pend_masked(const at::Tensor& x, const at::Tensor& branch, ForwardState& state) const;
  TokenStream pend(const at::Tensor& x, const at::Tensor& branch, std::string_view join,
                   ResidualGains gains, ForwardState& state) const;
  at::Tensor branch_scale(const at::Tensor& like, std::string_view join, double gain,
                          const ForwardState& state) const;

  std::string name_;
  double drop_path_;
  ResidualGains attention_gains_;
  bool retiring_ = false;
  std::shared_ptr<LayerNorm> norm1_, norm2_;
  std::shared_ptr<TokenMixer> mixer_;
  std::shared_ptr<TokenReducer> reducer_;
  std::shared_ptr<Mlp> mlp_;
};

}  // namespace ablate
