#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "runner/core/run_spec.h"
#include "runner/core/value.h"

namespace ablate {

/// Where data sets lie, by registered name.
using DataRoots = std::map<std::string, std::filesystem::path>;

/// Data sets by name, settings and place, as far as they were opened: listing the files of a large
/// one takes seconds, and a sweep asks for it once a run.
using OpenedDatasets = std::map<std::string, DatasetSplits>;

/// A resolved run and what its spec implies.
struct ResolvedRun {
  RunSpec spec;
  std::int64_t train_size = 0, test_size = 0, classes = 0;
  std::int64_t steps_per_epoch = 0, total_steps = 0;
  std::int64_t images_seen = 0;  ///< over the whole lineage: rows of a table must be comparable
  // Weights that the spec knows by content; may be empty.
  std::filesystem::path init_file, teacher_file;
};

/// A run that a draft starts from or learns from.
struct DraftParent {
  std::string role;
  const ResolvedRun* run;
};

/// Resolves the run table of a sweep or run file against the registries: every key is read or an
/// error, every default is written out, methods are checked on the union with the init parent's,
/// data sets are opened, or taken from `opened` and left there. `ranks` is only checked against
/// global_batch.
/// Throws SpecError "file:line:column: what, accepted: ...".
ResolvedRun resolve_run(const Value& draft, const std::vector<DraftParent>& parents,
                        const DataRoots& roots, int ranks, OpenedDatasets* opened = nullptr);

}  // namespace ablate
