#include "sweeps/pack_sizes.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

/// Plays trials on a device that makes speed(k) images a second with k runs; returns where they
/// end.
template <typename Speed>
int settle(PackSizes& sizes, Speed speed) {
  while (sizes.is_trial("s", sizes.next("s"))) {
    const int runs = sizes.next("s");
    sizes.measured("s", runs, speed(runs));
  }
  return sizes.next("s");
}

TEST(PackSizes, AFixedNumberIsTakenAsItIs) {
  PackSizes sizes(5);
  EXPECT_EQ(sizes.next("s"), 5);
  EXPECT_FALSE(sizes.is_trial("s", 5));
}

TEST(PackSizes, GrowsWhileTheDeviceGetsFaster) {
  PackSizes idle(std::nullopt), full(std::nullopt), half(std::nullopt);
  EXPECT_EQ(settle(idle, [](int runs) { return 100.0 * runs; }), PackSizes::kMost);
  EXPECT_EQ(settle(full, [](int runs) { return 100.0 + runs; }), 1);
  EXPECT_EQ(settle(half, [](int runs) { return runs <= 2 ? 100.0 * runs : 205.0; }), 2);
}

TEST(PackSizes, ShapesAreMeasuredApart) {
  PackSizes sizes(std::nullopt);
  sizes.measured("a", 1, 100);
  EXPECT_EQ(sizes.next("a"), 2);
  EXPECT_EQ(sizes.next("b"), 1);
}

TEST(PackSizes, GrowsNoFurtherThanMemoryGoes) {
  PackSizes sizes(std::nullopt);
  sizes.took_memory("s", 1, 30, 100);  // three fit into nine tenths
  EXPECT_EQ(settle(sizes, [](int runs) { return 100.0 * runs; }), 2);
  PackSizes unknown(std::nullopt);
  unknown.took_memory("s", 1, 0, 100);
  EXPECT_EQ(settle(unknown, [](int runs) { return 100.0 * runs; }), PackSizes::kMost);
}

TEST(PackSizes, HalvesWhatDidNotFit) {
  PackSizes fixed(8);
  fixed.out_of_memory("s", 8);
  EXPECT_EQ(fixed.next("s"), 4);
  fixed.out_of_memory("s", 4);
  fixed.out_of_memory("s", 2);
  fixed.out_of_memory("s", 1);
  EXPECT_EQ(fixed.next("s"), 1);
  PackSizes found(std::nullopt);
  found.measured("s", 1, 100);
  found.measured("s", 2, 200);
  found.out_of_memory("s", 4);
  EXPECT_EQ(settle(found, [](int runs) { return 100.0 * runs; }), 2);
}

}  // namespace
}  // namespace ablate
