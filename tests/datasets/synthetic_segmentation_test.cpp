#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "datasets/loader.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"

namespace ablate {
namespace {

using test::load_image;
using test::open_dataset;

DatasetSplits shapes(const std::string& more = "") {
  return open_dataset("synthetic_segmentation",
                      "train_size = 40\ntest_size = 12\nimage_size = 32\n" + more);
}

LabelMap map_of(const Dataset& dataset, std::int64_t index) {
  LabelMap labels;
  dataset.load_labels(index, labels);
  return labels;
}

TEST(SyntheticSegmentation, HasALabelForEachPixel) {
  const DatasetSplits splits = shapes("classes = 5");
  EXPECT_EQ(splits.train->size(), 40);
  EXPECT_EQ(splits.test->size(), 12);
  EXPECT_TRUE(splits.train->facts().dense);
  EXPECT_EQ(splits.train->facts().classes, 5);
  EXPECT_EQ(splits.train->facts().image_size, 32);
  std::array<std::int64_t, 5> pixels{};
  for (std::int64_t i = 0; i < 40; ++i) {
    const Image image = load_image(*splits.train, i);
    const LabelMap labels = map_of(*splits.train, i);
    ASSERT_EQ(image.width, labels.width);
    ASSERT_EQ(image.height, labels.height);
    for (const std::uint8_t label : labels.classes) {
      ASSERT_LT(label, 5);
      ++pixels[label];
    }
  }
  for (const std::int64_t count : pixels) EXPECT_GT(count, 40 * 32 * 32 / 100);
  EXPECT_GT(pixels[0], 40 * 32 * 32 / 10) << "the background";
}

TEST(SyntheticSegmentation, SamplesAreFunctionsOfTheirNumber) {
  const DatasetSplits once = shapes(), again = shapes("noise = 12.0");
  EXPECT_EQ(load_image(*once.train, 7), load_image(*again.train, 7));
  EXPECT_EQ(map_of(*once.train, 7), map_of(*again.train, 7));
  EXPECT_EQ(once.train->fingerprint(), again.train->fingerprint());
  std::set<std::vector<std::uint8_t>> all;
  for (const auto* part : {once.train.get(), once.test.get()}) {
    for (std::int64_t i = 0; i < part->size(); ++i) all.insert(load_image(*part, i).pixels);
  }
  EXPECT_EQ(all.size(), 52U) << "no sample occurs twice";
}

TEST(SyntheticSegmentation, OtherSettingsAreOtherData) {
  std::set<std::string> prints;
  for (const char* more : {"", "classes = 3", "noise = 13.0", "shapes = 5", "ragged = true"}) {
    prints.insert(shapes(more).train->fingerprint());
  }
  EXPECT_EQ(prints.size(), 5U);
}

// Classes are told by their texture: without noise the mean colour over all pixels of a class
// differs from every other's.
TEST(SyntheticSegmentation, ClassesDifferInColour) {
  const DatasetSplits splits = shapes("classes = 6\nnoise = 0.0");
  std::array<std::array<double, 3>, 6> sums{};
  std::array<double, 6> counts{};
  for (std::int64_t i = 0; i < 40; ++i) {
    const Image image = load_image(*splits.train, i);
    const LabelMap labels = map_of(*splits.train, i);
    for (std::size_t p = 0; p < labels.classes.size(); ++p) {
      const std::size_t label = labels.classes[p];
      ++counts[label];
      for (std::size_t c = 0; c < 3; ++c) sums[label][c] += image.pixels[3 * p + c];
    }
  }
  for (std::size_t a = 0; a < 6; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      double distance = 0;
      for (std::size_t c = 0; c < 3; ++c) {
        distance += std::abs(sums[a][c] / counts[a] - sums[b][c] / counts[b]);
      }
      EXPECT_GT(distance, 8.0) << a << ", " << b;
    }
  }
}

TEST(SyntheticSegmentation, MayHaveManySizes) {
  const DatasetSplits splits = shapes("ragged = true");
  EXPECT_EQ(splits.train->facts().image_size, 0);
  std::set<std::pair<int, int>> sizes;
  for (std::int64_t i = 0; i < 20; ++i) {
    const LabelMap labels = map_of(*splits.train, i);
    sizes.emplace(labels.width, labels.height);
    EXPECT_GE(labels.width, 24);
    EXPECT_LE(labels.width, 40);
  }
  EXPECT_GT(sizes.size(), 10U);
}

TEST(SyntheticSegmentation, HoldsOutPairs) {
  const DatasetSplits whole = shapes(), parts = carve_holdout(whole, 10);
  ASSERT_EQ(parts.holdout->size(), 10);
  for (std::int64_t i = 0; i < 10; ++i) {
    const Image image = load_image(*parts.holdout, i);
    std::int64_t place = 0;
    while (load_image(*whole.train, place) != image) ++place;
    EXPECT_EQ(map_of(*parts.holdout, i), map_of(*whole.train, place));
  }
}

AugmentRecipe dense_recipe(const char* settings = "") {
  return test::make_recipe(kDenseAugmentation, 32, settings);
}

Batch train_batch(std::shared_ptr<const Dataset> data, LoaderOptions options, std::int64_t step) {
  TrainLoader loader(std::move(data), dense_recipe(), options);
  loader.seek(0, step);
  return loader.next();
}

// Ranks, micro-batches and threads cut the same global batch; nothing else changes.
TEST(DenseLoader, GlobalBatchesDoNotDependOnRanksOrThreads) {
  const auto data = shapes("ragged = true").train;
  const Batch whole = train_batch(data, {.seed = 9, .global_batch = 8, .threads = 0}, 2);
  ASSERT_EQ(whole.label_maps.sizes(), (std::vector<std::int64_t>{8, 32, 32}));
  EXPECT_FALSE(whole.other_labels.defined());
  EXPECT_FALSE(whole.mix.defined());
  for (const int ranks : {2, 4}) {
    for (int rank = 0; rank < ranks; ++rank) {
      const Batch part = train_batch(
          data,
          {.seed = 9, .global_batch = 8, .shard = {.rank = rank, .size = ranks}, .threads = 2}, 2);
      const std::int64_t rows = 8 / ranks, first = rank * rows;
      EXPECT_TRUE(at::equal(part.images, whole.images.slice(0, first, first + rows)));
      EXPECT_TRUE(at::equal(part.label_maps, whole.label_maps.slice(0, first, first + rows)));
    }
  }
}

TEST(DenseLoader, GoesOnInTheMiddleOfAnEpoch) {
  const auto data = shapes().train;
  TrainLoader through(data, dense_recipe(), {.seed = 4, .global_batch = 8, .threads = 0});
  through.seek(0, 0);
  for (int i = 0; i < 7; ++i) through.next();
  const Batch eighth = through.next();
  TrainLoader resumed(data, dense_recipe(), {.seed = 4, .global_batch = 8, .threads = 0});
  resumed.seek(1, 2);
  const Batch again = resumed.next();
  EXPECT_TRUE(at::equal(eighth.images, again.images));
  EXPECT_TRUE(at::equal(eighth.label_maps, again.label_maps));
  EXPECT_EQ(eighth.indices, again.indices);
}

/// Every sample of a pass over the test part by ranks, as often as it was handed out.
std::multiset<std::int64_t> indices_of_pass(const std::shared_ptr<const Dataset>& data, int ranks,
                                            std::int64_t batch) {
  std::multiset<std::int64_t> seen;
  for (int rank = 0; rank < ranks; ++rank) {
    EvalLoader loader(
        data, dense_recipe(),
        {.global_batch = batch, .shard = {.rank = rank, .size = ranks}, .threads = 0});
    loader.start();
    for (std::int64_t i = 0; i < loader.batches(); ++i) {
      const Batch part = loader.next();
      for (std::size_t row = 0; row < part.indices.size(); ++row) {
        const auto at = static_cast<std::int64_t>(row);
        const bool padding = part.indices[row] < 0;
        EXPECT_EQ(part.weights[at].item<float>(), padding ? 0.0F : 1.0F);
        if (padding) {
          EXPECT_TRUE((part.label_maps[at] == int{LabelMap::kIgnore}).all().item<bool>());
          continue;
        }
        seen.insert(part.indices[row]);
        const LabelMap labels = map_of(*data, part.indices[row]);
        EXPECT_EQ(part.label_maps.size(1), labels.height);
        EXPECT_EQ(part.label_maps.size(2), labels.width);
        EXPECT_EQ(part.label_maps[at].flatten()[5].item<int>(), labels.classes[5]);
      }
    }
  }
  return seen;
}

TEST(DenseLoader, EvaluationSeesEachSampleOnceWithItsOwnLabels) {
  std::multiset<std::int64_t> every;
  for (std::int64_t i = 0; i < 12; ++i) every.insert(i);
  for (const char* sizes : {"ragged = false", "ragged = true"}) {
    const auto data = shapes(sizes).test;
    for (const auto& [ranks, batch] : {std::pair{1, 5}, {1, 12}, {2, 10}, {5, 5}, {7, 14}}) {
      EXPECT_EQ(indices_of_pass(data, ranks, batch), every) << sizes << ", " << ranks;
    }
  }
}

}  // namespace
}  // namespace ablate
