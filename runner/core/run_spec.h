#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "runner/core/value.h"

namespace ablate {

/// A registered part of a run, with every setting resolved.
struct Component {
  std::string name;
  int semantics = 0;
  Value params;  ///< all keys present, defaults included

  bool operator==(const Component&) const = default;
};

/// A run that this one is made from.
struct Parent {
  std::string role;  ///< "init": start weights and structure; "teacher": distillation target
  std::string run_id;
  std::string config_hash;

  bool operator==(const Parent&) const = default;
};

/// Everything that determines a result, and nothing else: paths, world size, micro-batch, threads
/// and log level are facts of an attempt. Value type; made by resolving a draft against the
/// registries, so it holds no default that is not written out.
struct RunSpec {
  Component dataset, model, task, optimizer, schedule, augmentation;
  std::vector<Component> methods;  ///< own methods, ordered by phase, then name
  Value
      training;  ///< epochs, global_batch, mix_group, bn_group, precision, kernels, ema, clip, ...
  std::uint64_t seed = 0;
  std::string init_sha256;      ///< of a start weights file; empty without
  std::vector<Parent> parents;  ///< at most one a role, sorted by role
  /// Methods whose edits come from the init parent, outermost ancestor first.
  std::vector<Component> inherited_methods;

  std::int64_t epochs() const;
  std::int64_t global_batch() const;
  /// The parent of a role ("init", "teacher"), or nullptr.
  const Parent* parent(std::string_view role) const;

  /// Canonical JSON: sorted keys, shortest round-trip numbers.
  nlohmann::json to_json() const;
  static RunSpec from_json(const nlohmann::json& json);
  std::string canonical() const;
  /// Identity of the run: 32 hexadecimal digits of canonical().
  std::string id() const;
  /// The same without seeds, recursively through parents: identity of a table row.
  nlohmann::json config_json() const;
  std::string config_hash() const;
};

}  // namespace ablate
