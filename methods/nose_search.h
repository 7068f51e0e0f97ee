#pragma once

#include <cstdint>
#include <vector>

#include "methods/method.h"

namespace ablate::methods::nose {

enum class Readout {
  Logits,    ///< class head, the read-out the authors point to: unbiased deviation, log base 2
  Features,  ///< class token after the final norm: population deviation, natural log
};

/// Where the layers to remove come from.
struct Selection {
  std::vector<std::int64_t> layers;  ///< given; empty: searched
  std::int64_t remove = 0;
  Readout readout = Readout::Logits;
  bool absolute = false;
  std::int64_t samples = 0;
  DecisionSplit split = DecisionSplit::Train;
};

/// Numbers of the blocks that have attention and no reducer of their own that compares its keys.
/// Throws SpecError when fewer than `remove` of them can go.
std::vector<int> removable_blocks(const std::vector<Block*>& blocks, std::int64_t remove);

/// NOSE search (Lin et al., CVPR 2024): the greedy minimum of transfer entropy over blocks that
/// still have attention; sorted. Leaves the model as it was and tells the run what was tried.
/// Throws SpecError when fewer than `remove` of them can go.
std::vector<std::int64_t> search(TrainContext& context, const Selection& selection);

}  // namespace ablate::methods::nose
