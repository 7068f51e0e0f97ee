#include "methods/models/block.h"

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

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
    case Slot::ChannelGroups:
      return "channel groups";
  }
  check_failed("known slot", cat("slot ", static_cast<int>(slot)));
}

at::Tensor TokenStream::value() const {
  if (!pending.defined()) return base;
  return scale.defined() ? at::addcmul(base, pending, scale) : at::add(base, pending);
}

void ForwardState::tap(const std::string& name, const at::Tensor& tensor) {
  if (taps.empty()) return;
  const auto found = taps.find(name);
  if (found != taps.end()) found->second = tensor;
}

Mlp::Mlp(std::int64_t dim, std::int64_t hidden_dim)
    : fc1(register_module("fc1", std::make_shared<Linear>(dim, hidden_dim))),
      fc2(register_module("fc2", std::make_shared<Linear>(hidden_dim, dim))) {}

at::Tensor Mlp::forward(const at::Tensor& x) { return fc2->forward(at::gelu(fc1->forward(x))); }

Block::Block(const BlockOptions& options, std::string name, std::shared_ptr<TokenMixer> mixer)
    : name_(std::move(name)), drop_path_(options.drop_path) {
  const auto hidden =
      static_cast<std::int64_t>(static_cast<double>(options.dim) * options.mlp_ratio);
  norm1_ = register_module("norm1", std::make_shared<LayerNorm>(options.dim, options.norm_eps));
  mixer_ = register_module("attn", std::move(mixer));
  norm2_ = register_module("norm2", std::make_shared<LayerNorm>(options.dim, options.norm_eps));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(options.dim, hidden));
}

TokenStream Block::forward(TokenStream stream, ForwardState& state) {
  TokenStream mixed = mix(stream.value(), state);
  at::Tensor x = mixed.value();
  if (reducer_ && (state.keys.defined() || reducer_->key_need() != KeyNeed::OwnBlock)) {
    state.following_norm = norm2_.get();
    x = reducer_->forward(x, state);
  }
  state.keys.reset();
  const at::Tensor branch = mlp_->forward(norm2_->forward(x));
  state.tap(name_ + ".mlp", branch);
  return {x, branch, branch_scale(x, ".mlp", 1.0, state)};
}

TokenStream Block::mix(const at::Tensor& x, ForwardState& state) {
  const ResidualGains gains = attention_gains_;
  const at::Tensor base = gains.skip == 1.0 ? x : x * gains.skip;
  if (!mixer_ || gains.branch == 0.0) return {base, {}, {}};
  // Not from a mixer that will go: what later blocks merge must not change when it does.
  const bool carry = state.carry_keys && keeps_keys();
  state.want_keys = carry || (reducer_ && reducer_->key_need() == KeyNeed::OwnBlock);
  const at::Tensor branch = mixer_->forward(norm1_->forward(x), state);
  state.want_keys = false;
  if (carry) state.carried_keys = state.keys.detach().mean(1);
  state.tap(name_ + ".attn", branch);
  return {base, branch, branch_scale(x, ".attn", gains.branch, state)};
}

at::Tensor Block::branch_scale(const at::Tensor& like, std::string_view branch, double gain,
                               const ForwardState& state) const {
  if (!is_training() || drop_path_ == 0.0) {
    return gain == 1.0 ? at::Tensor() : at::full({1, 1, 1}, gain, like.options());
  }
  // Word p % 4 of the stream's block p / 4 belongs to the sample at position p of the global batch:
  // what RandomStream(seed, DropPath, name, step) would hand out as its p-th number.
  const std::uint64_t module = hash64(cat(name_, branch));
  const auto key = philox_key(state.seed, Purpose::DropPath);
  const auto low = static_cast<std::uint32_t>(module);
  const auto high = static_cast<std::uint32_t>(module >> 32);
  const double keep = 1.0 - drop_path_;
  at::Tensor scale = at::zeros({like.size(0), 1, 1}, at::kDouble);
  double* data = scale.mutable_data_ptr<double>();
  for (std::int64_t row = 0; row < like.size(0); ++row) {
    const auto position = static_cast<std::uint64_t>(state.first_position + row);
    const auto words = philox4x32({static_cast<std::uint32_t>(position / 4),
                                   static_cast<std::uint32_t>(state.step), low, high},
                                  key);
    const double uniform = static_cast<double>(words[position % 4] >> 8) * 0x1p-24;
    if (uniform < keep) data[row] = gain / keep;
  }
  return scale.to(like.options());
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
  if (reducer_) register_module("reducer", reducer_);
}

}  // namespace ablate
