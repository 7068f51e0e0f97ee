#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sweeps/expand.h"
#include "sweeps/workspace.h"

namespace ablate {

struct ResolvedMethod {
  std::string name;
  std::string origin;  ///< "own" or "parent"
};

struct ResolvedParent {
  std::string role;
  std::string id;
};

/// What the registries say about a draft.
struct ResolvedRun {
  std::string id;
  nlohmann::json spec;    ///< RunSpec as JSON: the content of spec.json
  nlohmann::json config;  ///< the same without seeds
  std::string config_hash;
  std::vector<ResolvedMethod> methods;
  std::vector<ResolvedParent> parents;
  std::string dataset, split;
  std::int64_t train_size = 0, test_size = 0;
  std::int64_t steps_per_epoch = 0, total_steps = 0;
  std::int64_t images_seen = 0;        ///< over the lineage
  std::filesystem::path init_file;     ///< start weights; empty without
  std::filesystem::path teacher_file;  ///< weights of a teacher that is no run; empty without
  std::int64_t base_params = 0;        ///< of the model before any method
  std::int64_t base_macs = 0;          ///< multiply-accumulates of one image, the same way
  std::int64_t teacher_macs = 0;       ///< of its teacher, the same way; 0 without one
  std::vector<std::string> notes;      ///< labels of reconstructions
};

/// Resolves all drafts by one call of `ablate-train resolve`. The answer is kept under OUT/.cache,
/// keyed by the drafts, the program and the data folders, so that a second start does not load
/// LibTorch. Throws SpecError with every message of every draft at once, and when two rows of the
/// table are the same run under two labels.
std::vector<ResolvedRun> resolve_drafts(const std::vector<Draft>& drafts, int ranks,
                                        const Workspace& workspace);

}  // namespace ablate
