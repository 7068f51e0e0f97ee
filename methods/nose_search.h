#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "methods/method.h"

namespace ablate::methods::nose {

enum class Readout {
  Logits,    ///< class head, the read-out the authors point to: unbiased deviation, log base 2
  Features,  ///< class token after the final norm: population deviation, natural log
};

/// How layers are chosen; all but the first are what the first is held against.
enum class Strategy {
  Nose,           ///< greedily, by least transfer entropy
  Random,         ///< by chance: a function of the run's seed and `draw`
  First,          ///< those in front
  Last,           ///< those at the end
  LowestEntropy,  ///< by least entropy of their own outputs, over images and tokens
  OneShot,        ///< by least transfer entropy of each alone
  Exhaustive,     ///< the set of least transfer entropy
};

/// By value: "nose", "random", "first", "last", "lowest_entropy", "one_shot", "exhaustive".
extern const std::vector<std::string> kStrategies;
/// Sets of more layers are not searched exhaustively.
inline constexpr std::int64_t kMostExhaustive = 3;

/// Where the layers to remove come from.
struct Selection {
  std::vector<std::int64_t> layers;  ///< given; empty: searched
  std::int64_t remove = 0;
  Strategy strategy = Strategy::Nose;
  std::int64_t draw = 0;
  Readout readout = Readout::Logits;
  bool absolute = false;
  std::int64_t samples = 0;
  DecisionSplit split = DecisionSplit::Train;
};

/// Numbers of the blocks that have attention and no reducer of their own that compares its keys.
/// Throws SpecError when fewer than `remove` of them can go.
std::vector<int> removable_blocks(const std::vector<Block*>& blocks, std::int64_t remove);

/// The layers to remove, sorted, by a strategy that looks at blocks that still have attention.
/// Leaves the model as it was, and tells the run what was measured and the transfer entropy of the
/// set ("nose/te_set"). Throws SpecError when fewer than `remove` of them can go.
std::vector<std::int64_t> search(TrainContext& context, const Selection& selection);

}  // namespace ablate::methods::nose
