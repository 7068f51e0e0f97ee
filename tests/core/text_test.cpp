#include "runner/core/text.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

using Names = std::vector<std::string>;

TEST(Text, SplitKeepsEmptyParts) {
  EXPECT_EQ(split("a.b.c", '.'), (Names{"a", "b", "c"}));
  EXPECT_EQ(split(".a..", '.'), (Names{"", "a", "", ""}));
  EXPECT_EQ(split("", '.'), (Names{""}));
}

TEST(Text, NearestNameForgivesAThirdOfTheLetters) {
  const Names names = {"epochs", "global_batch", "optimizer"};
  EXPECT_EQ(nearest_name("epoch", names), "epochs");
  EXPECT_EQ(nearest_name("epcohs", names), "epochs");
  EXPECT_EQ(nearest_name("optimiser", names), "optimizer");
  EXPECT_EQ(nearest_name("batch", names), "");
  EXPECT_EQ(nearest_name("x", {}), "");
}

TEST(Text, NearestNamePrefersTheSmallestDistance) {
  EXPECT_EQ(nearest_name("resnet56", Names{"resnet50", "resnet56d", "resnet110"}), "resnet50");
  EXPECT_EQ(nearest_name("resnet56", Names{"resnet50", "resnet56", "resnet110"}), "resnet56");
}

TEST(Text, SuggestionListsWhatIsKnownWhenNothingIsNear) {
  const Names names = {"mae", "tome"};
  EXPECT_EQ(suggestion("tomw", names), " (did you mean \"tome\"?)");
  EXPECT_EQ(suggestion("quantise", names), "; known: mae, tome");
  EXPECT_EQ(suggestion("quantise", {}), "");
  const std::string many = suggestion("quantise", Names(100, "m"));
  EXPECT_TRUE(many.ends_with("m and 60 more")) << many;
}

TEST(Text, HumanBytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes(139.0 * 1024 * 1024 * 1024), "139.0 GiB");
}

TEST(Text, HumanDuration) {
  EXPECT_EQ(human_duration(0.85), "850 ms");
  EXPECT_EQ(human_duration(0.9996), "1.0 s");
  EXPECT_EQ(human_duration(12.3), "12.3 s");
  EXPECT_EQ(human_duration(59.97), "1 min 00 s");
  EXPECT_EQ(human_duration(245), "4 min 05 s");
  EXPECT_EQ(human_duration(3600 * 3 + 60 * 12), "3 h 12 min");
  EXPECT_EQ(human_duration(3599.9), "1 h 00 min");
  EXPECT_EQ(human_duration(86400 * 2 + 3600 * 4), "2 d 04 h");
  EXPECT_EQ(human_duration(-1), "unknown");
}

}  // namespace
}  // namespace ablate
