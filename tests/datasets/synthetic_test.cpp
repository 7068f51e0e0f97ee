#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"

namespace ablate {
namespace {

using test::load_image;
using test::message_of;
using test::open_dataset;

TEST(Synthetic, IsTheSameEveryTimeAndInAnyOrder) {
  const char* settings = "train_size = 12\ntest_size = 6\nclasses = 3\nimage_size = 16";
  const DatasetSplits first = open_dataset("synthetic", settings);
  const DatasetSplits second = open_dataset("synthetic", settings);
  for (std::int64_t i = 11; i >= 0; --i) {
    EXPECT_EQ(load_image(*first.train, i), load_image(*second.train, i));
  }
  EXPECT_EQ(first.train->fingerprint(), second.train->fingerprint());
}

TEST(Synthetic, SamplesDependOnTheirIndexNotOnTheSizeOfTheSet) {
  const auto small = open_dataset("synthetic", "train_size = 12\nclasses = 3").train;
  const auto large = open_dataset("synthetic", "train_size = 1200\nclasses = 3").train;
  EXPECT_EQ(load_image(*small, 7), load_image(*large, 7));
  EXPECT_NE(small->fingerprint(), large->fingerprint());
}

TEST(Synthetic, IsBalancedAndNoSampleOccursTwice) {
  const DatasetSplits splits =
      open_dataset("synthetic", "train_size = 30\ntest_size = 15\nclasses = 5\nimage_size = 8");
  std::map<std::int64_t, int> count;
  std::set<std::vector<std::uint8_t>> images;
  for (const auto& part : {splits.train, splits.test}) {
    for (std::int64_t i = 0; i < part->size(); ++i) {
      ++count[part->label(i)];
      images.insert(load_image(*part, i).pixels);
    }
  }
  EXPECT_EQ(count, (std::map<std::int64_t, int>{{0, 9}, {1, 9}, {2, 9}, {3, 9}, {4, 9}}));
  EXPECT_EQ(images.size(), 45U);
}

TEST(Synthetic, EverySettingChangesTheImagesOrTheirPrint) {
  std::set<std::string> prints;
  for (const char* settings : {"", "train_size = 2049", "classes = 9", "image_size = 16",
                               "noise = 20.0", "distraction = 0.5"}) {
    prints.insert(open_dataset("synthetic", settings).train->fingerprint());
  }
  EXPECT_EQ(prints.size(), 6U);
}

/// Amplitude of a plane wave of (fx, fy) cycles in the green channel, whatever its phase.
double response(const Image& image, int fx, int fy) {
  const int side = image.width;
  std::vector<double> sine;  // over one turn, and a quarter more for the cosine
  for (int i = 0; i < side + side / 4; ++i)
    sine.push_back(std::sin(2 * std::numbers::pi * i / side));
  double real = 0, imaginary = 0;
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const auto turn = static_cast<std::size_t>(((fx * x + fy * y) % side + side) % side);
      const double value = image.row(y)[3 * x + 1] - 127.5;
      imaginary += value * sine[turn];
      real += value * sine[turn + static_cast<std::size_t>(side) / 4];
    }
  }
  return std::hypot(real, imaginary);
}

/// What position cannot change: amplitudes on a grid of frequencies.
std::vector<double> spectrum(const Image& image) {
  std::vector<double> amplitudes;
  for (int fy = 0; fy <= 4; ++fy) {
    for (int fx = -4; fx <= 4; ++fx) amplitudes.push_back(response(image, fx, fy));
  }
  return amplitudes;
}

// Pixels alone tell nothing (classes share their mean), the texture tells the class: nearest mean
// spectrum is right far more often than chance, and not always.
TEST(Synthetic, IsLearnableButNotTrivial) {
  const DatasetSplits splits =
      open_dataset("synthetic", "train_size = 200\ntest_size = 100\nclasses = 10");
  std::vector<std::vector<double>> centres(10, std::vector<double>(45, 0.0));
  for (std::int64_t i = 0; i < 200; ++i) {
    const auto amplitudes = spectrum(load_image(*splits.train, i));
    auto& centre = centres[static_cast<std::size_t>(splits.train->label(i))];
    for (std::size_t k = 0; k < 45; ++k) centre[k] += amplitudes[k] / 20;
  }
  int right = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    const auto amplitudes = spectrum(load_image(*splits.test, i));
    std::vector<double> distances;
    for (const auto& centre : centres) {
      double distance = 0;
      for (std::size_t k = 0; k < 45; ++k) distance += std::pow(amplitudes[k] - centre[k], 2);
      distances.push_back(distance);
    }
    const auto best = std::ranges::min_element(distances) - distances.begin();
    if (best == splits.test->label(i)) ++right;
  }
  EXPECT_GT(right, 40);
  EXPECT_LT(right, 100);
}

TEST(Synthetic, RefusesWhatCannotBe) {
  for (const char* settings : {"classes = 1", "train_size = 0", "image_size = 2", "noise = -1.0"}) {
    EXPECT_NE(message_of<SpecError>([&] { open_dataset("synthetic", settings); }).find("test:1"),
              std::string::npos)
        << settings;
  }
}

}  // namespace
}  // namespace ablate
