#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "runner/train/spec_resolver.h"
#include "runner/worker/run_pack.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

/// Random augmentation, drop-path and averaged weights: whatever runs of one process could take
/// from each other. An epoch is eight steps.
inline constexpr std::string_view kPackedTable = R"(
epochs = 3
global_batch = 16
mix_group = 4
ema_decay = 0.9
augmentation = { name = "cifar_strong", pad = 2 }
optimizer = { name = "adamw", lr = 2e-3 }
[dataset]
name = "synthetic"
train_size = 128
test_size = 50
classes = 6
image_size = 8
[model]
name = "vit"
image_size = 8
patch_size = 4
embed_dim = 16
depth = 2
num_heads = 2
drop_path = 0.2
)";

using Overrides = std::vector<std::string>;

inline Value packed_table(int seed, const Overrides& overrides = {}) {
  Value table = parse_toml(kPackedTable, "packed.toml");
  for (const std::string& override : overrides) {
    auto [path, value] = parse_override(override);
    table.set_path(path, std::move(value));
  }
  table.set_path("seed", Value(seed));
  return table;
}

inline ResolvedRun resolve_packed(int seed, const Overrides& overrides = {},
                                  const ResolvedRun* parent = nullptr) {
  std::vector<DraftParent> parents;
  if (parent != nullptr) parents.push_back({"init", parent});
  return resolve_run(packed_table(seed, overrides), parents, {}, 1);
}

inline RunSpec packed_spec(int seed, const Overrides& overrides = {}) {
  return resolve_packed(seed, overrides).spec;
}

/// A parent and a child that removes attention from it.
struct Family {
  ResolvedRun parent, child;

  explicit Family(int seed)
      : parent(resolve_packed(seed)),
        child(resolve_packed(seed, {R"(methods=[{name="nose",remove=1,samples=32}])"}, &parent)) {}
};

/// The first attempt at a run below `out`, with a checkpoint at every step.
inline PackedRun packed_run(const RunSpec& spec, const std::filesystem::path& out) {
  PackedRun run{.spec = spec, .environment = environment_in(out)};
  run.environment.checkpoint_steps = 1;
  return run;
}

/// Runs alone one after the other, in the given order, in one folder.
inline std::vector<RunRecord> run_one_by_one(const std::vector<RunSpec>& specs,
                                             const std::filesystem::path& out) {
  std::vector<RunRecord> records;
  for (const RunSpec& spec : specs) records.push_back(run_small(spec, out));
  return records;
}

/// Makes OUT/runs/ID/spec.json, as `ablate` does for runs that are computed elsewhere.
inline void write_spec(const RunSpec& spec, const std::filesystem::path& out) {
  const RunPaths paths(out, spec.id());
  make_directories(paths.directory);
  write_file_atomic(paths.spec(), spec.canonical());
}

inline int attempts_at(const RunSpec& spec, const std::filesystem::path& out) {
  int attempts = 0;
  while (std::filesystem::exists(RunPaths(out, spec.id()).attempt(attempts + 1))) ++attempts;
  return attempts;
}

}  // namespace ablate::test
