#pragma once

#include <cstdint>
#include <vector>

#include "datasets/loader.h"

namespace ablate {

/// Which samples a micro-batch shows, and how each is augmented.
struct DrawnBatch {
  struct Row {
    std::int64_t index;
    AugmentKey key;
  };

  std::int64_t step = 0;            ///< of the run
  std::int64_t first_position = 0;  ///< of row 0 in the global batch
  std::vector<Row> rows;
};

/// Micro-batch `number` of this rank, counted over the whole run.
DrawnBatch draw_batch(std::int64_t samples, const AugmentRecipe& recipe,
                      const LoaderOptions& options, const BatchPlan& plan, std::int64_t number);

}  // namespace ablate
