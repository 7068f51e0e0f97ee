#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runner/core/value.h"
#include "runner/train/spec_resolver.h"
#include "runner/train/training_options.h"

namespace ablate::test {

/// Two blocks on images of 8 x 8; an epoch is four steps of 32 images.
inline constexpr std::string_view kTinyVit = R"(
epochs = 2
global_batch = 32
mix_group = 4
evaluate_every = 100
seed = 5
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
mlp_ratio = 2.0
[optimizer]
name = "adamw"
lr = 2e-3
)";

/// A CIFAR network with BatchNorm on images of 8 x 8; an epoch is four steps of 32 images.
inline constexpr std::string_view kTinyResNet = R"(
epochs = 2
global_batch = 32
bn_group = 8
mix_group = 4
evaluate_every = 100
seed = 5
[dataset]
name = "synthetic"
train_size = 128
test_size = 50
classes = 6
image_size = 8
[model]
name = "resnet20"
image_size = 8
[optimizer]
name = "sgd"
lr = 0.05
)";

/// What makes a step depend on the position of an image, on its partner and on earlier steps.
inline std::vector<std::string> all_randomness() {
  return {"augmentation.name=cifar_strong", "augmentation.pad=2", "augmentation.repeated=3",
          "task.label_smoothing=0.1"};
}

/// A run table with "key=value" on top.
inline Value run_table(std::string_view toml, const std::vector<std::string>& overrides = {}) {
  Value table = parse_toml(toml, "test.toml");
  for (const std::string& override : overrides) {
    auto [path, value] = parse_override(override);
    table.set_path(path, std::move(value));
  }
  return table;
}

inline RunSpec resolve_table(std::string_view toml, const std::vector<std::string>& overrides = {},
                             int ranks = 1) {
  return resolve_run(run_table(toml, overrides), {}, {}, ranks).spec;
}

inline std::vector<std::string> joined(std::vector<std::string> a,
                                       const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The settings of a resolved run that belong to no registered component.
inline TrainingOptions options_of(const RunSpec& spec) {
  Params params(spec.training, "run");
  return TrainingOptions::read(params);
}

}  // namespace ablate::test
