#include "methods/models/block.h"

#include <utility>

#include "methods/models/drop_path.h"
#include "methods/models/ops.h"
#include "methods/models/random_numbers.h"
#include "runner/core/error.h"

namespace ablate {

std::string_view slot_name(Slot slot) {
  switch (slot) {
    case Slot::TokenMixer:
      return "token mixer";
    case Slot::ResidualGains:
      return "residual gains";
    case Slot::TokenReducer:
      return "token reducer";
    case Slot::LayerAttention:
      return "layer attention";
    case Slot::ChannelAttention:
      return "channel attention";
    case Slot::ChannelGroups:
      return "channel groups";
  }
  check_failed("known slot", cat("slot ", static_cast<int>(slot)));
}

at::Tensor TokenStream::value() const {
  const at::Tensor identity = skip.defined() ? base * skip : base;
  if (!pending.defined()) return identity;
  return scale.defined() ? at::addcmul(identity, pending, scale) : at::add(identity, pending);
}

TokenStream TokenStream::amplified(double gain) const {
  if (gain == 1.0) return *this;
  const auto times = [&](const at::Tensor& factor) {
    return factor.defined() ? factor * gain : common_gain(gain, base);
  };
  return {base, pending, pending.defined() ? times(scale) : at::Tensor(), times(skip),
          pending_bias};
}

at::Tensor common_gain(double factor, const at::Tensor& like) {
  return factor == 1.0 ? at::Tensor() : at::full({1, 1, 1}, factor, like.options());
}

void ForwardState::tap(const std::string& name, const at::Tensor& tensor) {
  if (taps.empty()) return;
  const auto found = taps.find(name);
  if (found != taps.end()) found->second = tensor;
}

void ForwardState::forget_tokens() {
  for (at::Tensor* of_tokens :
       {&token_sizes, &log_sizes, &sources, &keys, &carried_keys, &class_attention, &token_mask}) {
    of_tokens->reset();
  }
  protected_tokens = map_height = 0;
  proportional_attention = track_sources = carry_keys = false;
}

Mlp::Mlp(std::int64_t dim, std::int64_t hidden_dim)
    : fc1(register_module("fc1", std::make_shared<Linear>(dim, hidden_dim))),
      fc2(register_module("fc2", std::make_shared<Linear>(hidden_dim, dim))),
      hidden_{"mlp", ChannelRole::Hidden, 1, hidden_dim, hidden_dim} {}

at::Tensor Mlp::forward(const at::Tensor& x, ForwardState& state) {
  const std::int64_t rows = x.numel() / x.size(-1);
  spend_on_channels(hidden_, 2.0 * static_cast<double>(rows * x.size(-1)), state);
  const at::Tensor hidden = pass_channels(ops::linear_gelu(x, *fc1, state), hidden_, state);
  return ops::linear(hidden, *fc2, state, ops::BiasGradient::Consumer);
}

void Mlp::keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                        ParameterSlicer& slicer) {
  slicer.slice(fc1->weight, 0, kept);
  slicer.slice(fc1->bias, 0, kept);
  slicer.slice(fc2->weight, 1, kept);
  group.width = static_cast<std::int64_t>(kept.size());
}

Block::Block(const BlockOptions& options, std::string name, std::shared_ptr<TokenMixer> mixer)
    : LayerSite({.name = name, .channels = options.dim, .tokens = true}),
      name_(std::move(name)),
      drop_path_(options.drop_path) {
  const auto hidden =
      static_cast<std::int64_t>(static_cast<double>(options.dim) * options.mlp_ratio);
  norm1_ = register_module("norm1", std::make_shared<LayerNorm>(options.dim, options.norm_eps));
  mixer_ = register_module("attn", std::move(mixer));
  norm2_ = register_module("norm2", std::make_shared<LayerNorm>(options.dim, options.norm_eps));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(options.dim, hidden));
}

TokenStream Block::forward(TokenStream stream, ForwardState& state) {
  at::Tensor previous;
  if (layer_attention() && layer_attention()->needs_previous()) {
    stream = {ops::join(stream, state)};
    previous = layer_attention()->remember(stream.base, state);
  }
  stream = reduce(ReducerPlace::BeforeMixer, std::move(stream), state);
  stream = mix(std::move(stream), state);
  stream = reduce(ReducerPlace::BeforeMlp, std::move(stream), state);
  state.keys.reset();
  state.class_attention.reset();
  const auto [x, normed] = ops::join_and_norm(stream, *norm2_, state);
  if (!state.taps.empty()) state.tap(name_ + ".mixed", x);
  stream = pend(x, mlp_->forward(normed, state), ".mlp", {}, state);
  return layer_attention() ? connect(stream, previous, state) : stream;
}

/// Layer attention, with the branch of the MLP still to be added.
TokenStream Block::connect(const TokenStream& stream, const at::Tensor& previous,
                           ForwardState& state) {
  const LayerAttention& attention = *layer_attention();
  if (attention.skip() == SkipMode::Drop) {
    if (wants_shadow(state)) {
      const at::NoGradGuard no_grad;
      shadow(attention.input_norm()->forward(ops::join(stream, state)), state);
    }
    return stream;
  }
  const auto [x, normed] = ops::join_and_norm(stream, *attention.input_norm(), state);
  const at::Tensor branch = attend(normed, previous, state);
  if (attention.adds_nothing()) return {x};
  return {x, branch, drop_scale(x, state)};
}

std::vector<Block::OwnedChannels> Block::channel_groups() const {
  std::vector<OwnedChannels> groups;
  const auto add = [&](ChannelOwner* owner) {
    if (!owner) return;
    for (ChannelGroup* group : owner->channel_groups()) groups.push_back({owner, group});
  };
  add(mixer_.get());
  add(mlp_.get());
  return groups;
}

TokenStream Block::reduce(ReducerPlace place, TokenStream stream, ForwardState& state) {
  if (!reducer_ || reducer_->place() != place) return stream;
  const bool mixed = state.keys.defined() || state.class_attention.defined();
  if (needs_own_mixer(reducer_->key_need()) && !mixed) return stream;
  state.following_norm = norm2_.get();
  return reducer_->forward(std::move(stream), state);
}

TokenStream Block::mix(TokenStream stream, ForwardState& state) {
  if (!mixer_ || attention_gains_.branch == 0.0) return stream.amplified(attention_gains_.skip);
  const auto [x, normed] = ops::join_and_norm(stream, *norm1_, state);
  // Not from a mixer that will go: what later blocks merge must not change when it does.
  const bool carry = state.carry_keys && keeps_keys();
  const KeyNeed need = reducer_ ? reducer_->key_need() : KeyNeed::None;
  state.want_keys = carry || need == KeyNeed::OwnBlock;
  state.want_class_attention = need == KeyNeed::ClassAttention;
  const at::Tensor branch = mixer_->forward(normed, state);
  state.want_keys = state.want_class_attention = false;
  if (carry) {
    const auto precise = at::promote_types(state.keys.scalar_type(), at::kFloat);
    state.carried_keys = state.keys.detach().mean(1, /*keepdim=*/false, precise);
  }
  if (draws_gains()) return pend_masked(x, branch, state);
  return pend(x, branch, ".attn", attention_gains_, state);
}

bool Block::draws_gains() const {
  return is_training() && attention_gains_.mask != GainMask::None && attention_gains_.branch < 1.0;
}

TokenStream Block::pend_masked(const at::Tensor& x, const at::Tensor& branch,
                               ForwardState& state) const {
  const std::string join = cat(name_, ".attn");
  const auto ahead = state.join_numbers.find(join);
  // In captured steps it moves on the device.
  ABLATE_CHECK(ahead == state.join_numbers.end() || ahead->second.branch.defined(), join,
               ": its gain is not on the device");
  const at::Tensor probability =
      ahead != state.join_numbers.end()
          ? ahead->second.branch
          : at::full({}, attention_gains_.branch, x.options().dtype(at::kDouble));
  const at::Tensor drawn = draw_mask(attention_gains_.mask, probability, x, join + ".mask", state);
  // The branch by itself as a join adds it, drop-path and the gradient of its bias included.
  const TokenStream pending = pend(at::zeros_like(x), branch, ".attn", attention_gains_, state);
  const at::Tensor added = ops::join(pending, state) / probability.to(x.scalar_type());
  const double without = attention_gains_.without_branch();
  return {x * (drawn * (1.0 - without) + without) + drawn * added};
}

TokenStream Block::pend(const at::Tensor& x, const at::Tensor& branch, std::string_view join,
                        ResidualGains gains, ForwardState& state) const {
  const std::string name = cat(name_, join);
  state.tap(name, branch);
  const at::Tensor bias = std::exchange(state.deferred_bias, {});
  const auto ahead = state.join_numbers.find(name);
  if (ahead != state.join_numbers.end()) {
    return {x, branch, ahead->second.scale, ahead->second.skip, bias};
  }
  return {x, branch, branch_scale(x, name, gains.branch, state), common_gain(gains.skip, x), bias};
}

at::Tensor Block::branch_scale(const at::Tensor& like, std::string_view join, double gain,
                               const ForwardState& state) const {
  if (!is_training() || drop_path_ == 0.0) return common_gain(gain, like);
  return drop_path_scale(join, drop_path_, gain, like.size(0), like.options(), state);
}

void Block::set_mixer(std::shared_ptr<TokenMixer> mixer) {
  ABLATE_CHECK(mixer_ && mixer, name_, ": there is no mixer to replace");
  mixer_ = replace_module("attn", std::move(mixer));
}

void Block::remove_mixer() {
  ABLATE_CHECK(mixer_, name_, ": the mixer has been removed before");
  unregister_module("norm1");
  unregister_module("attn");
  norm1_.reset();
  mixer_.reset();
  attention_gains_.branch = 0.0;
  retiring_ = false;
}

void Block::set_reducer(std::shared_ptr<TokenReducer> reducer) {
  if (reducer_) unregister_module("reducer");
  reducer_ = std::move(reducer);
  if (!reducer_) return;
  reducer_->qualified_name = name_ + ".reducer";
  register_module("reducer", reducer_);
}

}  // namespace ablate
