#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "results/statistics.h"
#include "results/store.h"

namespace ablate {

/// Two finished runs item by item of the same evaluation data. It speaks about these two
/// checkpoints alone: several seeds are compared by tables.
struct ItemComparison {
  std::string kind;  ///< what was right or wrong: "top1"
  std::size_t items = 0, both_right = 0, both_wrong = 0;
  SignTest mcnemar;  ///< b: only the first run is right; c: only the second
};

/// Compares what both runs have recorded, kind by kind. Throws SpecError when there is nothing to
/// compare: other data, or no record of one of them.
std::vector<ItemComparison> compare_items(ResultStore& store, const std::string& first,
                                          const std::string& second);

}  // namespace ablate
