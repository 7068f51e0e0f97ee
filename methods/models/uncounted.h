#pragma once

#include "runner/torch/torch.h"

namespace ablate {

/// While alive, operations of this thread do not count as multiply-accumulates. For work that the
/// literature leaves out of its tables, as the matching of token merging (Bolya et al., ICLR 2023).
class UncountedScope {
 private:
  at::DisableRecordFunctionGuard guard_;  // the counter observes operations as a profiler does
};

}  // namespace ablate
