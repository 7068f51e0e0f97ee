#pragma once

#include <vector>

#include "datasets/store/convert.h"

namespace ablate {

struct VerifyReport {
  std::int64_t samples = 0;
  std::vector<std::string> damaged;  ///< names of samples, in order
  bool header_damaged = false;       ///< the file's own first bytes

  bool sound() const { return damaged.empty() && !header_damaged; }
};

/// Reads every byte of a finished part and compares checksums. Throws Error when the index itself
/// is missing or damaged (only converting again makes a new one).
VerifyReport verify_part(const PackFiles& files, int threads, const PassHooks& hooks = {});

/// Makes damaged or missing samples anew from the source they were made from, in place, and returns
/// what was wrong. Throws SpecError naming a sample that the source has no longer, or has with
/// other bytes; the others are repaired then.
VerifyReport repair_part(const StoredDataset& source, const PackFiles& files, int threads,
                         const PassHooks& hooks = {});

}  // namespace ablate
