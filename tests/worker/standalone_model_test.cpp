#include "runner/worker/standalone_model.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace ablate {
namespace {

TEST(StandaloneModel, ConvertsNumbersButNotCounts) {
  const Structure structure = Structure::from_json(nlohmann::json::parse(
      R"({"model": {"name": "resnet20", "params": {}}, "classes": 10, "bn_group": 0, "edits": []})"));
  const auto buffers = build_model(structure, at::kDouble, 0)->named_buffers();
  EXPECT_EQ(buffers["bn1.running_mean"].scalar_type(), at::kDouble);
  EXPECT_EQ(buffers["bn1.num_batches_tracked"].scalar_type(), at::kLong);
}

}  // namespace
}  // namespace ablate
