#include "datasets/dataset.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"

namespace ablate {
namespace {

using test::load_image;
using test::message_of;
using test::open_dataset;

DatasetSplits forty() {
  return open_dataset("synthetic", "train_size = 40\ntest_size = 8\nclasses = 4\nimage_size = 8");
}

/// Index in `whole` of each sample of a part: synthetic images are all different.
std::vector<std::int64_t> places(const Dataset& part, const Dataset& whole) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; i < part.size(); ++i) {
    const Image image = load_image(part, i);
    for (std::int64_t j = 0; j < whole.size(); ++j) {
      if (load_image(whole, j) == image) {
        EXPECT_EQ(part.label(i), whole.label(j));
        result.push_back(j);
      }
    }
  }
  return result;
}

TEST(Holdout, SplitsTheTrainingPartInTwo) {
  const DatasetSplits whole = forty();
  const DatasetSplits split = carve_holdout(whole, 10);
  ASSERT_EQ(split.holdout->size(), 10);
  ASSERT_EQ(split.train->size(), 30);
  EXPECT_EQ(split.test, whole.test);
  const std::vector<std::int64_t> held = places(*split.holdout, *whole.train);
  const std::vector<std::int64_t> kept = places(*split.train, *whole.train);
  EXPECT_TRUE(std::ranges::is_sorted(held) && std::ranges::is_sorted(kept));
  std::set<std::int64_t> all(held.begin(), held.end());
  all.insert(kept.begin(), kept.end());
  EXPECT_EQ(held.size() + kept.size(), 40U);
  EXPECT_EQ(all.size(), 40U) << "the parts overlap";
  EXPECT_NE(held.back(), 9) << "held-out samples are drawn, not the first ones";
}

// Nothing but the size of the set decides, so every run of every sweep holds out the same samples;
// a larger holdout contains a smaller one.
TEST(Holdout, IsTheSameEveryTimeAndNested) {
  const DatasetSplits whole = forty();
  const auto held = [&](std::int64_t count) {
    return places(*carve_holdout(whole, count).holdout, *whole.train);
  };
  EXPECT_EQ(held(10), held(10));
  EXPECT_TRUE(std::ranges::includes(held(20), held(10)));
}

TEST(Holdout, HasItsOwnFingerprints) {
  const DatasetSplits whole = forty();
  const DatasetSplits small = carve_holdout(whole, 5), large = carve_holdout(whole, 6);
  const std::set<std::string> prints{whole.train->fingerprint(), small.train->fingerprint(),
                                     large.train->fingerprint(), small.holdout->fingerprint(),
                                     large.holdout->fingerprint()};
  EXPECT_EQ(prints.size(), 5U);
  EXPECT_EQ(small.train->fingerprint(), carve_holdout(forty(), 5).train->fingerprint());
  EXPECT_EQ(small.train->facts().classes, 4);
}

TEST(Holdout, OfNothingChangesNothing) {
  const DatasetSplits whole = forty(), same = carve_holdout(whole, 0);
  EXPECT_EQ(same.train, whole.train);
  EXPECT_EQ(same.holdout, nullptr);
}

TEST(Holdout, MustLeaveSomethingToTrainOn) {
  for (const std::int64_t count : {40, 41}) {
    const std::string message = message_of<SpecError>([&] { carve_holdout(forty(), count); });
    EXPECT_NE(message.find("use at most 39"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace ablate
