#pragma once

#include <optional>
#include <string>
#include <vector>

#include "methods/models/batch_norm.h"
#include "methods/models/layer_attention.h"
#include "methods/models/layers.h"

namespace ablate {

class Params;

/// Settings of multi-head recurrent layer attention.
struct MrlaOptions {
  std::optional<std::int64_t> head_dim;  ///< nothing: 32 on feature maps, 16 on tokens
  double drop_path = -1.0;               ///< of the branch; -1: 0.2 on feature maps, 0 on tokens
  bool relu = false;                     ///< behind the BatchNorm, on feature maps
  bool class_token = false;  ///< tokens: the branch of prefix tokens is their normalised selves

  /// `relu`: the default.
  static MrlaOptions read(Params& params, bool relu);
  std::int64_t head_dim_at(const LayerPlace& place) const;
  double drop_path_at(const LayerPlace& place) const;
};

/// Multi-head recurrent layer attention (Fang et al., "Cross-Layer Retrospective Retrieving via
/// Layer Attention", ICLR 2023). Of the map x that a block puts out,
///
///   q = conv1d(GAP x; w_q),  k = conv1d(GAP x; w_k) along the channels,  v = depthwise 3x3 of x,
///
/// and logits are q k / sqrt(d) in each head of d consecutive channels. Parameters query, key
/// (1, 1, kernel), value (C, 1, 3, 3); child norm: a BatchNorm behind what is retrieved, or a
/// LayerNorm in front of all where x are tokens, which then form a map without the prefix tokens.
/// Merged tokens stand at each of their places, and take the mean of what is retrieved there.
class Mrla : public LayerAttention {
 public:
  Mrla(const LayerPlace& place, const MrlaOptions& options);

  at::Tensor forward(const at::Tensor& x, const at::Tensor& previous, ForwardState& state) final;
  void shadow(const at::Tensor& x, ForwardState& state) final;
  double drop_path() const override { return drop_path_; }
  const LayerNorm* input_norm() const override { return token_norm_.get(); }
  void initialize(std::uint64_t seed, const std::string& name) override;

 protected:
  /// x as a map, and back to the form of x.
  at::Tensor to_map(const at::Tensor& x, const ForwardState& state) const;
  at::Tensor from_map(const at::Tensor& map, const at::Tensor& x, const ForwardState& state) const;

  /// What is retrieved at a map (B, C, H, W), before norm and join; undefined: nothing.
  virtual at::Tensor retrieve(const at::Tensor& map, const at::Tensor& previous,
                              ForwardState& state) = 0;
  /// Adds to state.retrievals what query and key (B, C), without gradient, would retrieve with if
  /// nothing was skipped.
  virtual void record_shadow(const at::Tensor& query, const at::Tensor& key,
                             ForwardState& state) = 0;

  /// The same for a retrieval that is skipped.
  void record_skipped(const at::Tensor& map, ForwardState& state);

  struct QueryKey {
    at::Tensor query, key;  ///< (B, C)
  };
  /// Of the pooled map (B, C).
  QueryKey query_and_key(const at::Tensor& pooled) const;
  at::Tensor key_of(const at::Tensor& pooled) const;
  at::Tensor value_of(const at::Tensor& map) const;
  /// (B, C) as (B, g, d).
  at::Tensor in_heads(const at::Tensor& channels) const;
  /// Logits of one query against one key, (B, g).
  at::Tensor logits_of(const at::Tensor& query, const at::Tensor& key) const;
  bool on_tokens() const { return place_.tokens; }
  void forget(const std::vector<std::string>& parts) override;

  LayerPlace place_;
  std::int64_t head_dim_;
  double drop_path_;
  bool relu_, class_token_;
  at::Tensor query_, key_, value_;
  std::shared_ptr<GroupBatchNorm2d> map_norm_;
  std::shared_ptr<LayerNorm> token_norm_;
};

/// Softmax over the blocks of the group so far (eq. 6 of the paper): O = sum_i softmax_i(l) v_i.
class MrlaBase : public Mrla {
 public:
  using Mrla::Mrla;
  bool can_skip(SkipMode) const override { return true; }

 protected:
  at::Tensor retrieve(const at::Tensor& map, const at::Tensor& previous,
                      ForwardState& state) override;
  void record_shadow(const at::Tensor& query, const at::Tensor& key, ForwardState& state) override;
  std::vector<std::string> unused(SkipMode mode) const override;
  /// Called with the last entry of the cache, this block's, in its place: changes what earlier ones
  /// hold before they are retrieved from.
  virtual void refresh(LayerHistory&) {}
  /// Called before refresh(), with this block's pooled map.
  virtual void advance(const at::Tensor&, LayerHistory&) {}
  /// sum_i weights[.., i] v_i over the cache, weights (B, g, t).
  virtual at::Tensor sum_values(const at::Tensor& weights, const ForwardState& state) const;

 private:
  at::Tensor retrieve_all(const at::Tensor& query, ForwardState& state) const;
  at::Tensor recur(const at::Tensor& query, LayerHistory& history) const;
  /// (B, g, t): of a query against keys.
  at::Tensor row_logits(const at::Tensor& query, const std::vector<at::Tensor>& keys) const;
};

/// The gated recurrence (eq. 9 of the paper): O = sigmoid(l) v + lambda o, where o is the shortcut
/// of the block, which stands for what was retrieved before. Parameter gain (C, 1, 1): lambda. On
/// tokens v passes a GELU and o a LayerNorm of its own, norm_previous.
class MrlaLight : public Mrla {
 public:
  MrlaLight(const LayerPlace& place, const MrlaOptions& options);

  bool needs_previous() const override;
  at::Tensor remember(const at::Tensor& input, const ForwardState& state) const override;
  bool can_skip(SkipMode mode) const override;
  void initialize(std::uint64_t seed, const std::string& name) override;

 protected:
  at::Tensor retrieve(const at::Tensor& map, const at::Tensor& previous,
                      ForwardState& state) override;
  void record_shadow(const at::Tensor& query, const at::Tensor& key, ForwardState& state) override;
  std::vector<std::string> unused(SkipMode mode) const override;
  void forget(const std::vector<std::string>& parts) override;
  /// Renews o before it is used.
  virtual at::Tensor refresh(const at::Tensor& previous, LayerHistory&) { return previous; }
  /// Called before refresh(), with this block's pooled map.
  virtual void advance(const at::Tensor&, LayerHistory&) {}

 private:
  /// Gate and lambda of each channel, (B, C, 2).
  at::Tensor channel_weights(const at::Tensor& logits) const;
  void record_logits(const at::Tensor& logits, ForwardState& state) const;

  at::Tensor gain_;
  std::shared_ptr<LayerNorm> previous_norm_;
};

/// Kernel of the 1-D convolutions over C channels (Wang et al., ECA-Net, CVPR 2020): the odd one of
/// floor(|log2 C + 1| / 2) and the next number.
std::int64_t channel_kernel(std::int64_t channels);

}  // namespace ablate
