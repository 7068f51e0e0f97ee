#include "methods/models/parameter_depth.h"

#include <charconv>

#include <gtest/gtest.h>

#include "tests/support/models.h"

namespace ablate {
namespace {

using test::make_model;

/// Layer numbers as BEiT's published code gives them by name: embeddings 0, block i gets i + 1, all
/// else the last, depth + 1.
std::int64_t beit_layer(std::string_view name, std::int64_t depth) {
  if (name == "cls_token" || name == "dist_token" || name == "pos_embed") return 0;
  if (name.starts_with("patch_embed")) return 0;
  if (!name.starts_with("blocks.")) return depth + 1;
  name.remove_prefix(7);
  std::int64_t block = -1;
  std::from_chars(name.data(), name.data() + name.size(), block);
  return block + 1;
}

TEST(LayersAbove, CountAsBeitDoes) {
  for (const char* name : {"deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"}) {
    const auto model = make_model(name);
    const auto above = layers_above(*model);
    ASSERT_EQ(above.size(), model->parameters().size());
    for (const auto& [parameter, count] : above) {
      EXPECT_EQ(count, 12 + 1 - beit_layer(parameter, 12)) << parameter;
    }
  }
}

TEST(LayersAbove, OfAStagedModelPutTheStepBetweenStagesToTheLaterOne) {
  const auto above = layers_above(*make_model("swin_tiny_patch4_window7_224"));
  EXPECT_EQ(above.at("patch_embed.proj.weight"), 13);
  EXPECT_EQ(above.at("layers.0.blocks.1.norm1.weight"), 11);
  EXPECT_EQ(above.at("layers.1.downsample.reduction.weight"), 10);
  EXPECT_EQ(above.at("layers.1.blocks.0.norm1.weight"), 10);
  EXPECT_EQ(above.at("layers.3.blocks.1.mlp.fc2.bias"), 1);
  EXPECT_EQ(above.at("norm.weight"), 0);
  EXPECT_EQ(above.at("head.fc.weight"), 0);
}

TEST(LayersAbove, OfAConvolutionalModelCountItsBlocks) {
  const auto above = layers_above(*make_model("resnet50", "", 10, 32));
  EXPECT_EQ(above.at("conv1.weight"), 17);
  EXPECT_EQ(above.at("layer1.0.conv1.weight"), 16);
  EXPECT_EQ(above.at("layer4.2.bn3.weight"), 1);
  EXPECT_EQ(above.at("fc.bias"), 0);
}

}  // namespace
}  // namespace ablate
