#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::load_image;
using test::message_of;
using test::open_dataset;
using test::TempFolder;
using test::write_bytes;

constexpr int kSide = 32;
constexpr std::size_t kPlane = kSide * kSide;

/// Value of a made-up image at (channel, y, x).
std::uint8_t pixel(int image, int channel, int y, int x) {
  return static_cast<std::uint8_t>(image * 91 + channel * 50 + y * 7 + x * 3);
}

/// Records of a CIFAR file: the given label bytes, then the planes.
std::vector<std::uint8_t> records(const std::vector<std::vector<std::uint8_t>>& labels, int first) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    bytes.insert(bytes.end(), labels[i].begin(), labels[i].end());
    for (int channel = 0; channel < 3; ++channel) {
      for (int y = 0; y < kSide; ++y) {
        for (int x = 0; x < kSide; ++x) {
          bytes.push_back(pixel(first + static_cast<int>(i), channel, y, x));
        }
      }
    }
  }
  return bytes;
}

void expect_image(const Dataset& dataset, std::int64_t index, int made_up) {
  const Image image = load_image(dataset, index);
  ASSERT_EQ(image.width, kSide);
  ASSERT_EQ(image.height, kSide);
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        ASSERT_EQ(image.row(y)[3 * x + channel], pixel(made_up, channel, y, x));
      }
    }
  }
}

TEST(Cifar100, ReadsFineLabelsAndPlanes) {
  const TempFolder root;
  write_bytes(root / "cifar-100-binary" / "train.bin", records({{19, 99}, {0, 7}}, 0));
  write_bytes(root / "cifar-100-binary" / "test.bin", records({{3, 42}}, 2));
  // Both the folder above and the folder itself may be named.
  for (const fs::path& given : {root.path(), root / "cifar-100-binary"}) {
    const DatasetSplits splits = open_dataset("cifar100", "", given);
    ASSERT_EQ(splits.train->size(), 2);
    ASSERT_EQ(splits.test->size(), 1);
    EXPECT_EQ(splits.train->label(0), 99);
    EXPECT_EQ(splits.train->label(1), 7);
    EXPECT_EQ(splits.test->label(0), 42);
    expect_image(*splits.train, 0, 0);
    expect_image(*splits.train, 1, 1);
    expect_image(*splits.test, 0, 2);
    EXPECT_EQ(splits.train->facts().classes, 100);
    EXPECT_EQ(splits.train->facts().image_size, kSide);
  }
}

TEST(Cifar10, ReadsItsFiveFilesInOrder) {
  const TempFolder root;
  for (int i = 1; i <= 5; ++i) {
    write_bytes(root / cat("data_batch_", i, ".bin"),
                records({{static_cast<std::uint8_t>(i)}, {0}}, 2 * i));
  }
  write_bytes(root / "test_batch.bin", records({{9}}, 50));
  const DatasetSplits splits = open_dataset("cifar10", "", root.path());
  ASSERT_EQ(splits.train->size(), 10);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(splits.train->label(2 * i), i + 1);
    expect_image(*splits.train, 2 * i, 2 * (i + 1));
    expect_image(*splits.train, 2 * i + 1, 2 * (i + 1) + 1);
  }
  EXPECT_EQ(splits.test->label(0), 9);
}

TEST(Cifar100, NoticesOtherContentUnderTheSameName) {
  const TempFolder root;
  write_bytes(root / "test.bin", records({{3, 42}}, 2));
  const auto print = [&](std::uint8_t label) {
    write_bytes(root / "train.bin", records({{0, label}}, 0));
    return open_dataset("cifar100", "", root.path()).train->fingerprint();
  };
  const std::string first = print(1);
  EXPECT_NE(first, print(2));
  EXPECT_EQ(first, print(1));
}

TEST(Cifar100, RefusesFilesThatCannotBeIt) {
  const TempFolder root;
  const auto refusal = [&](const std::vector<std::uint8_t>& train) {
    write_bytes(root / "train.bin", train);
    return message_of<SpecError>([&] { open_dataset("cifar100", "", root.path()); });
  };
  write_bytes(root / "test.bin", records({{3, 42}}, 2));
  std::vector<std::uint8_t> cut = records({{0, 1}, {0, 2}}, 0);
  cut.pop_back();
  EXPECT_NE(refusal(cut).find("6147 bytes are no whole number of 3074-byte records"),
            std::string::npos);
  EXPECT_NE(refusal({}).find("0 bytes"), std::string::npos);
  const std::string label = refusal(records({{0, 1}, {0, 100}}, 0));
  EXPECT_NE(label.find("train.bin: record 1 has label 100; labels are 0 to 99"), std::string::npos)
      << label;
}

TEST(Cifar100, SaysWhichFilesAreExpected) {
  const TempFolder root;
  const std::string message =
      message_of<SpecError>([&] { open_dataset("cifar100", "", root.path()); });
  EXPECT_NE(message.find("train.bin"), std::string::npos) << message;
  EXPECT_NE(message.find("cifar-100-binary"), std::string::npos) << message;
}

/// Sums over all images of a set.
struct Moments {
  double sum[3] = {}, squares[3] = {};
  std::vector<std::int64_t> per_class = std::vector<std::int64_t>(100);

  explicit Moments(const Dataset& dataset) {
    Image image;
    for (std::int64_t i = 0; i < dataset.size(); ++i) {
      ++per_class.at(static_cast<std::size_t>(dataset.label(i)));
      dataset.load(i, image);
      for (std::size_t p = 0; p < image.pixels.size(); ++p) {
        const double value = image.pixels[p] / 255.0;
        sum[p % 3] += value;
        squares[p % 3] += value * value;
      }
    }
  }
};

TEST(CifarLong, RealSetHasItsKnownMoments) {
  const fs::path unpack = test::shared_folder() / "data/cifar-100/unpack";
  if (!fs::exists(unpack)) {
    GTEST_SKIP() << "needs data/cifar-100 below ABLATE_SHARED or ../shared";
  }
  const TempFolder root;
  const std::string command = cat(unpack.string(), " ", root.path().string(), " > /dev/null");
  ASSERT_EQ(std::system(command.c_str()), 0);
  const DatasetSplits splits = open_dataset("cifar100", "", root.path());
  ASSERT_EQ(splits.train->size(), 50'000);
  ASSERT_EQ(splits.test->size(), 10'000);
  const Moments train(*splits.train), test(*splits.test);
  EXPECT_EQ(train.per_class, std::vector<std::int64_t>(100, 500));
  EXPECT_EQ(test.per_class, std::vector<std::int64_t>(100, 100));
  const Normalization& known = splits.train->facts().normalization;
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const double n = 50'000.0 * kPlane, mean = train.sum[channel] / n;
    EXPECT_NEAR(mean, known.mean[channel], 6e-5);
    EXPECT_NEAR(std::sqrt(train.squares[channel] / n - mean * mean), known.std[channel], 6e-5);
  }
}

}  // namespace
}  // namespace ablate
