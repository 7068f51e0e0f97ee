#pragma once

#include <filesystem>
#include <string>

#include "tests/end_to_end/workbench.h"

namespace ablate::test {

/// Three trained rows and one that is only evaluated, two seeds, eight steps a run: a second or so
/// each.
inline const std::string kTinySweep = R"(name = "tiny"
title = "A tiny sweep"
[run]
dataset = { name = "synthetic", train_size = 128, test_size = 64, image_size = 16, classes = 4, noise = 8 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 16, depth = 2, num_heads = 2 }
epochs = 2
global_batch = 16
optimizer = { name = "adamw", lr = 1e-2 }
[[variant]]
label = "dense"
[[variant]]
label = "dense, same extra epochs"
from = "dense"
[[variant]]
label = "NOSE 1/2"
from = "dense"
methods = [ { name = "nose", remove = 1, samples = 32 } ]
[[variant]]
label = "NOSE 1/2 + ToMe"
from = "NOSE 1/2"
epochs = 0
methods = [ { name = "tome", r = 2 } ]
[seeds]
count = 2
[launch]
checkpoint_steps = 1
[table]
columns = ["top1", "params_m", "gmacs"]
baseline = "dense, same extra epochs"
)";
inline constexpr int kTinyRuns = 8;

/// The sweep above, run once a test program. Nobody changes it: tests that write take a copy.
struct FinishedSweep {
  TempFolder folder;
  Workbench bench{folder.path()};
  CapturedRun run = bench.ablate({"sweep", bench.write("tiny.toml", kTinySweep)});
};
inline const FinishedSweep& finished_sweep() {
  static const FinishedSweep sweep;
  return sweep;
}

/// A copy of the finished sweep to work on.
class SweepCopy {
 public:
  SweepCopy() {
    std::filesystem::copy(finished_sweep().folder.path(), folder_.path(),
                          std::filesystem::copy_options::recursive);
  }
  const Workbench& bench() const { return bench_; }

 private:
  TempFolder folder_;
  Workbench bench_{folder_.path()};
};

}  // namespace ablate::test
