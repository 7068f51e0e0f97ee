#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runner/measure/mac_counter.h"
#include "tests/methods/tome_support.h"

// Token counts and costs of the published tables.

namespace ablate {
namespace {

using test::apply_tome;
using test::Counts;
using test::MethodContext;

/// A12: attention over n tokens, MLP over what is left after merging.
std::int64_t merged_macs(std::int64_t dim, std::int64_t classes, const std::vector<int>& removed,
                         const Counts& tokens) {
  constexpr std::int64_t kPatches = 196, kPatchSize = 16;
  std::int64_t macs = kPatches * dim * 3 * kPatchSize * kPatchSize + dim * classes;
  std::int64_t before = kPatches + 1;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool attends = std::ranges::find(removed, static_cast<int>(i)) == removed.end();
    if (attends) macs += 4 * before * dim * dim + 2 * before * before * dim;
    macs += 8 * tokens[i] * dim * dim;
    before = tokens[i];
  }
  return macs;
}

struct PublishedMerge {
  std::int64_t dim;
  std::vector<int> removed;
  const char* settings;
  double gmacs;
  Counts tokens;
};

constexpr std::int64_t kTiny = 192, kSmall = 384, kBase = 768;

const std::vector<PublishedMerge>& published() {
  static const Counts r13{184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41};
  static const Counts r16{181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11};
  static const Counts falling{165, 136, 110, 87, 67, 50, 36, 25, 17, 12, 10, 10};
  static const std::vector<PublishedMerge> rows{
      // As published to a tenth (Bolya et al., ICLR 2023).
      {kTiny, {}, "r = 13", 0.731, r13},
      {kSmall, {}, "r = 13", 2.703, r13},
      {kBase, {}, "r = 13", 10.367, r13},
      {kTiny, {}, "r = 16", 0.622, r16},
      {kSmall, {}, "r = 16", 2.291, r16},
      {kBase, {}, "r = 16", 8.772, r16},
      {kSmall, {}, "r = 16\ninflect = -1.0", 1.539, falling},
      {kBase, {}, "r = 16\ninflect = -1.0", 5.864, falling},
      {kTiny, {}, "r = 8", 0.924, {189, 181, 173, 165, 157, 149, 141, 133, 125, 117, 109, 101}},
      {kTiny, {}, "r = 12", 0.769, {185, 173, 161, 149, 137, 125, 113, 101, 89, 77, 65, 53}},
      // On models that have lost attention: the rows of Lin et al., CVPR 2024.
      {kBase,
       {0, 1, 3, 4, 6},
       "r = 24\nstart = 1",
       11.432,
       {197, 197, 197, 197, 197, 173, 173, 149, 125, 101, 77, 53}},
      {kBase,
       {0, 1, 3, 4, 6},
       "r = 28\nstart = 1",
       10.856,
       {197, 197, 197, 197, 197, 169, 169, 141, 113, 85, 57, 29}},
      {kBase,
       {0, 1, 3, 4, 6, 9},
       "r = 14",
       11.896,
       {197, 197, 183, 183, 183, 169, 169, 155, 141, 141, 127, 113}},
      {kSmall,
       {0, 2, 4},
       "r = 22\nstart = 1",
       2.704,
       {197, 197, 197, 175, 175, 153, 131, 109, 87, 65, 43, 22}},
      {kSmall,
       {0, 2, 4, 6},
       "r = 19\nstart = 1",
       2.989,
       {197, 197, 197, 178, 178, 159, 159, 140, 121, 102, 83, 64}},
      {kTiny,
       {0, 2, 4},
       "r = 19\nstart = 1",
       0.775,
       {197, 197, 197, 178, 178, 159, 140, 121, 102, 83, 64, 45}},
      {kTiny,
       {0, 2, 4, 6},
       "r = 14\nstart = 1",
       0.869,
       {197, 197, 197, 183, 183, 169, 169, 155, 141, 127, 113, 99}},
  };
  return rows;
}

TEST(PublishedMerging, LeavesTheTokenCountsAndCosts) {
  constexpr std::int64_t kDim = 8, kClasses = 10;
  for (const PublishedMerge& row : published()) {
    SCOPED_TRACE(cat(row.settings, " at width ", row.dim, ", ", row.removed.size(), " removed"));
    // The number of tokens does not follow the width, so a narrow model shows it.
    const auto model = test::make_model(
        "vit", "image_size = 224\npatch_size = 16\nembed_dim = 8\nnum_heads = 1\ndepth = 12");
    model->initialize(1);
    model->eval();
    MethodContext context(*model);
    for (const int block : row.removed) context.surgeon().apply(RemoveMixer{block});
    apply_tome(context, row.settings);
    EXPECT_EQ(test::token_counts(*model), row.tokens);
    EXPECT_EQ(measure_cost(*model).macs, merged_macs(kDim, kClasses, row.removed, row.tokens));
    EXPECT_NEAR(static_cast<double>(merged_macs(row.dim, 1000, row.removed, row.tokens)) / 1e9,
                row.gmacs, 5.01e-4);
  }
}

TEST(PublishedMerging, IsWhatTheRealModelCosts) {
  const auto tiny = test::make_model("deit_tiny_patch16_224", "", 1000);
  tiny->initialize(1);
  MethodContext context(*tiny);
  apply_tome(context, "r = 13");
  const ModelCost cost = measure_cost(*tiny);
  EXPECT_EQ(cost.macs, merged_macs(kTiny, 1000, {}, published()[0].tokens));
  EXPECT_EQ(cost.final_tokens, 41);
}

}  // namespace
}  // namespace ablate
