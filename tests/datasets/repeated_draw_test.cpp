#include "datasets/repeated_draw.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace ablate {
namespace {

/// Images that one mixing group (DeiT: one rank) sees of an unshuffled set, copies in a row.
std::vector<std::int64_t> images_of_group(std::int64_t group, std::int64_t groups,
                                          std::int64_t batch) {
  const std::int64_t rows = batch / groups;
  std::vector<std::int64_t> images;
  for (std::int64_t row = 0; row < rows; ++row) {
    images.push_back(dealt_draw(group * rows + row, batch, rows, 3) / 3);
  }
  return images;
}

// The sampler of DeiT's training code on 512 images and four ranks, without shuffling.
TEST(RepeatedDraw, DealsAsDeitsSampler) {
  const std::vector<std::vector<std::int64_t>> first = {{0, 1, 2, 4, 5, 6, 8, 9, 10, 12},
                                                        {0, 1, 3, 4, 5, 7, 8, 9, 11, 12},
                                                        {0, 2, 3, 4, 6, 7, 8, 10, 11, 12},
                                                        {1, 2, 3, 5, 6, 7, 9, 10, 11, 13}};
  std::set<std::int64_t> distinct;
  for (std::int64_t group = 0; group < 4; ++group) {
    const auto images = images_of_group(group, 4, 512);
    ASSERT_EQ(images.size(), 128U);
    EXPECT_EQ(std::vector(images.begin(), images.begin() + 10),
              first[static_cast<std::size_t>(group)]);
    EXPECT_EQ(images.back(), (508 + group) / 3) << "draw 508 + group of 512";
    distinct.insert(images.begin(), images.end());
  }
  EXPECT_EQ(distinct.size(), 171U);
}

TEST(RepeatedDraw, PutsNoTwoCopiesIntoAGroupOfThreeOrMore) {
  for (const std::int64_t groups : {3, 4, 8, 32}) {
    for (std::int64_t group = 0; group < groups; ++group) {
      const auto images = images_of_group(group, groups, groups * 32);
      EXPECT_EQ(std::set(images.begin(), images.end()).size(), images.size());
    }
  }
}

TEST(RepeatedDraw, VisitsEveryDrawOnce) {
  for (const std::int64_t group : {0, 1, 4, 24, 96}) {
    std::set<std::int64_t> draws;
    for (std::int64_t position = 0; position < 96; ++position) {
      draws.insert(dealt_draw(position, 96, group, 3));
    }
    EXPECT_EQ(draws.size(), 96U);
    EXPECT_EQ(*draws.rbegin(), 95);
  }
}

TEST(RepeatedDraw, LeavesSingleDrawsAndUnmixedOnesInARow) {
  for (std::int64_t position = 0; position < 96; ++position) {
    EXPECT_EQ(dealt_draw(position, 96, 4, 1), position);
    EXPECT_EQ(dealt_draw(position, 96, 0, 3), position);
  }
}

}  // namespace
}  // namespace ablate
