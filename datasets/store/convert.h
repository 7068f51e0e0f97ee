#pragma once

#include <functional>
#include <string>

#include "datasets/store/pack_files.h"
#include "datasets/store/pack_sample.h"
#include "datasets/store/parts.h"

namespace ablate {

/// How far a pass over the samples of a part is.
struct PassProgress {
  std::string part;
  std::int64_t done = 0, total = 0;
  double images_per_s = 0, seconds_left = 0;  ///< of this pass; 0 as long as nothing is known
};

/// Told and asked during a pass; both may be empty.
struct PassHooks {
  std::function<void(const PassProgress&)> progress{};  ///< about once a second
  std::function<bool()> stop{};                         ///< whether to stop soon
};

struct ConvertOptions {
  enum class Duplicates { Keep, Skip, Error };

  PackForm form{};
  bool skip_bad = false;  ///< leave out what cannot be read or decoded, else that is an error
  Duplicates duplicates = Duplicates::Keep;  ///< samples of equal bytes within a part
  int threads = 1;
};

struct ConvertReport {
  std::int64_t source_samples = 0, samples = 0;
  std::uint64_t bytes = 0;
  Findings findings;
  bool finished = false;  ///< false when stopped: the same call goes on
};

/// Packs one part, in the order of the source: the files are the same for any number of threads and
/// interruptions. Every sample is looked at before bad ones end it, so that the error names all.
/// Throws SpecError (bad samples; another conversion is in the way) and TransientError (disk full).
ConvertReport convert_part(const StoredPart& source, const PackFiles& files,
                           const ConvertOptions& options, const PassHooks& hooks = {});

/// Samples of `test` that `train` has too (equal bytes in the source), as findings.
Findings shared_samples(const SampleIndex& train, const SampleIndex& test);

}  // namespace ablate
