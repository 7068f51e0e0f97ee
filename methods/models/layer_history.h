#pragma once

#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// What sums over a map have left for its gradient: factors of heads (B, g) and upstream gradients.
struct MapUses : torch::CustomClassHolder {
  struct Use {
    at::Tensor weights, upstream;
    bool fused;
  };
  std::vector<Use> list;
};

/// See share_map() of layer_maps.h; without `uses` sums hand gradients back at once.
struct SharedMap {
  at::Tensor map;
  c10::intrusive_ptr<MapUses> uses{};
};

/// What the blocks of one group hand to later ones in one pass. Tensors are those that were
/// computed, none is copied: memory grows by one map a block.
struct LayerHistory {
  int group = -1;  ///< number of the group's first block; another one starts an empty history

  // Cache of multi-head recurrent layer attention.
  std::vector<at::Tensor> keys;   ///< (B, C) each
  std::vector<SharedMap> values;  ///< (B, C, H, W) each
  at::Tensor retrieved;           ///< (B, C, H, W): the last O
  // Behind `retrieved`: its query (B, C) and, when it had a choice, its logits (B, g, t); or the
  // logarithm of the sum of their exponentials (B, g), where it was asked for (SkipMode::Recur).
  at::Tensor query, logits, log_sum;

  // Of the values, (B, C) each, where blocks refresh what is cached: their means over the pixels,
  // and the factors that make them what they are now.
  std::vector<at::Tensor> value_means, value_factors;

  // State of a recurrent cell that the group shares.
  at::Tensor hidden, cell;  ///< (B, C)
  at::Tensor of_hidden;  ///< what the cell makes of `hidden`, where it is asked for several times
};

/// What one block retrieved with: constants in float (double in double passes).
struct Retrieval {
  int block = 0;  ///< number among Model::layer_sites()
  /// Softmax form: (B, g, t), logarithms of the weights, oldest entry first. Not in shadow records,
  /// whose rows are those of queries against the keys of all blocks of the group so far, so that
  /// they can be computed at once.
  at::Tensor log_row;
  at::Tensor query, key;  ///< of shadow records: (B, g, d)
  at::Tensor logits;      ///< gated form: (B, g); the gates are their sigmoids
};

/// Filled by a pass whose ForwardState::retrievals points here, in the order of blocks. Changes
/// neither outputs nor gradients, parameters or buffers.
struct RetrievalRecord {
  /// Whether it tells what would be retrieved with if nothing was skipped: skipped blocks then
  /// compute key and query (no feature maps). Else skipped blocks leave no entry, and rows are over
  /// what the cache holds.
  bool shadow = false;
  std::vector<Retrieval> retrievals;
};

}  // namespace ablate
