#pragma once

#include <memory>

#include "methods/layer_cell.h"
#include "methods/mrla.h"

namespace ablate {

/// Of MethodInfo.
inline constexpr const char* kDlaPaper =
    "Wang et al., Strengthening Layer Interaction via Dynamic Layer Attention, IJCAI 2024";
inline constexpr const char* kDlaReconstruction =
    "per sample, where the public code refreshes a whole batch with the state of its first sample";

/// Settings of dynamic layer attention.
struct DlaOptions {
  MrlaOptions mrla;
  std::int64_t reduction = 4;  ///< channels over those of the cell's hidden layers

  static DlaOptions read(Params& params, bool relu);
};

/// The sharing unit of dynamic layer attention (Wang et al., "Strengthening Layer Interaction via
/// Dynamic Layer Attention", IJCAI 2024): three gates of a cell, shared by the blocks of a group,
///
///   i, f = sigmoid, c~ = tanh;  c' = f c + i c~;  h' = sigmoid(c').
///
/// `hidden` and `cell` of the history, zero at first, are its state; everything is per sample.
class DynamicSharingUnit : public LayerCell {
 public:
  DynamicSharingUnit(std::int64_t channels, std::int64_t reduction)
      : LayerCell(channels, reduction, kGates) {}

  /// h' of what is pooled, the state staying as it is. What the hidden state gives is computed once
  /// for each state, and kept in the history.
  at::Tensor context(const at::Tensor& pooled, LayerHistory& history) const;
  /// The same, and the state follows.
  void advance(const at::Tensor& pooled, LayerHistory& history) const;

  static constexpr std::int64_t kGates = 3;

 private:
  at::Tensor next_cell(const at::Tensor& pooled, LayerHistory& history) const;
};

}  // namespace ablate
