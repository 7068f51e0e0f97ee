#include "datasets/device/crop_loader.h"

#include <cstring>

#include <gtest/gtest.h>

#include "tests/datasets/crop_batches.h"
#include "tests/support/datasets.h"

namespace ablate {
namespace {

constexpr std::int64_t kCropRows = 24;
constexpr int kCropSide = 20;

LoaderOptions crop_options(int threads) {
  return {.seed = 5, .global_batch = kCropRows, .mix_group = 6, .threads = threads, .prefetch = 2};
}

/// What the kernels would make of a batch's samples, by the same code on the host; `as_half`: in
/// bfloat16.
Batch finish_on_host(const CropSource& source, const CroppedBatch& cropped, bool as_half = false) {
  Batch shape;
  shape.images = at::empty({cropped.samples, 3, kCropSide, kCropSide}, at::kFloat);
  shape.labels = at::empty({cropped.samples}, at::kLong);
  shape.other_labels = shape.labels;
  shape.mix = at::empty({cropped.samples}, at::kFloat);
  const test::GuardedBatch guarded(shape);
  std::vector<std::uint8_t> rows(static_cast<std::size_t>(cropped.room.rows));
  std::vector<std::int32_t> taps(static_cast<std::size_t>(cropped.room.taps));
  std::vector<std::uint8_t> canvases(kCropRows * 2 * 3 * kCropSide * kCropSide);
  const auto* crops = cropped.crops.const_data_ptr<std::uint8_t>();
  augment::CropBatch batch{.train = source.common(),
                           .crops = reinterpret_cast<const augment::CropRow*>(crops),
                           .pixels = cropped.pixels.const_data_ptr<std::uint8_t>(),
                           .rows = rows.data(),
                           .taps = taps.data(),
                           .canvases = canvases.data()};
  batch.train.rows = cropped.samples;
  batch.train.first_position = cropped.first_position;
  batch.train.step = reinterpret_cast<const std::int64_t*>(crops + cropped.crops.numel()) - 1;
  batch.train.images = guarded.batch.images.data_ptr<float>();
  batch.train.labels = guarded.batch.labels.data_ptr<std::int64_t>();
  batch.train.other_labels = guarded.batch.other_labels.data_ptr<std::int64_t>();
  batch.train.mixed = guarded.batch.mix.data_ptr<float>();
  Batch rounded;
  rounded.images = guarded.batch.images.to(at::kBFloat16);
  const test::GuardedBatch halves(rounded);
  if (as_half) batch.half = static_cast<kernels::bfloat16*>(halves.batch.images.data_ptr());
  augment::host::make_batch(batch);
  EXPECT_TRUE(guarded.guards_intact());
  EXPECT_TRUE(halves.guards_intact());
  Batch made = guarded.batch;
  if (as_half) made.images = halves.batch.images;
  return made;
}

// The whole way of an image: part, antialiased resize, flip, RandAugment, normalisation, erasing,
// mixing. Both sides draw by themselves and resample by code of their own.
TEST(CropLoader, FinishedBatchesAreTrainLoaders) {
  const auto dataset = std::make_shared<test::Sizes>(60);
  for (const char* settings :
       {"repeated = 1", "randaugment = \"rand-m8-mstd1-n4-p1\"\nerasing = 0.9",
        "interpolation = \"bilinear\"\nrandaugment = \"\"\nmix_prob = 0.5",
        "crop = \"none\"\neval_resize = 23", "scale = [0.9, 1.0]\nmixup = 0.0\ncutmix = 0.0"}) {
    const AugmentRecipe recipe = test::make_recipe("deit", kCropSide, settings);
    TrainLoader host(dataset, recipe, crop_options(2));
    CropLoader crops(dataset, recipe, crop_options(3), /*pinned=*/false);
    host.seek(1, 1);
    crops.seek(1, 1);
    for (int i = 0; i < 4; ++i) {  // into the next epoch
      const Batch expected = host.next();
      const CroppedBatch cropped = crops.next();
      const Batch made = finish_on_host(crops, cropped);
      const test::Apart apart(made.images, expected.images, dataset->facts().normalization);
      EXPECT_LE(apart.level, 1e-3) << settings;
      EXPECT_TRUE(at::equal(made.labels, expected.labels)) << settings;
      EXPECT_EQ(cropped.indices, expected.indices);
      EXPECT_EQ(cropped.first_position, expected.first_position);
      if (!expected.mix.defined()) continue;
      EXPECT_TRUE(at::equal(made.other_labels, expected.other_labels)) << settings;
      EXPECT_TRUE(at::allclose(made.mix, expected.mix)) << settings;
    }
    EXPECT_GT(crops.take_stage_seconds().sum(), 0);
  }
}

// Rounding comes last, behind mixing of every kind and without any.
TEST(CropLoader, HalvesAreTheFloatsRoundedOnce) {
  const auto dataset = std::make_shared<test::Sizes>(60);
  for (const char* settings : {"mix_prob = 0.5", "cutmix = 0.0", "mixup = 0.0",
                               "mixup = 0.0\ncutmix = 0.0\nerasing = 1.0"}) {
    const AugmentRecipe recipe = test::make_recipe("deit", kCropSide, settings);
    CropLoader crops(dataset, recipe, crop_options(1), /*pinned=*/false);
    crops.seek(0, 0);
    for (int i = 0; i < 4; ++i) {
      const CroppedBatch cropped = crops.next();
      const Batch floats = finish_on_host(crops, cropped);
      const Batch halves = finish_on_host(crops, cropped, /*as_half=*/true);
      EXPECT_TRUE(at::equal(halves.images, floats.images.to(at::kBFloat16))) << settings;
      EXPECT_TRUE(at::equal(halves.labels, floats.labels));
      if (!recipe.mixing.enabled()) continue;
      EXPECT_TRUE(at::equal(halves.other_labels, floats.other_labels));
      EXPECT_TRUE(at::equal(halves.mix, floats.mix));
    }
  }
}

/// Whether finished batches of a pass are EvalLoader's to the bit, and padding is where it has it.
void expect_eval_batches(CropEvalLoader& crops, EvalLoader& host) {
  ASSERT_EQ(crops.batches(), host.batches());
  for (std::int64_t i = 0; i < host.batches(); ++i) {
    const Batch expected = host.next();
    const CroppedBatch cropped = crops.next();
    EXPECT_EQ(cropped.indices, expected.indices);
    EXPECT_EQ(cropped.first_position, expected.first_position);
    EXPECT_EQ(static_cast<double>(cropped.samples), expected.weights.sum().item<double>());
    if (cropped.samples == 0) continue;
    const Batch made = finish_on_host(crops, cropped);
    EXPECT_TRUE(at::equal(made.images, expected.images.narrow(0, 0, cropped.samples)));
    EXPECT_TRUE(at::equal(made.labels, expected.labels.narrow(0, 0, cropped.samples)));
  }
}

// Nothing is drawn, so every bit is the host's: whole sets and parts, on ranks that get nothing of
// the last batch, too; images as large as they are resized to, among them.
TEST(CropEvalLoader, FinishedBatchesAreEvalLoaders) {
  const auto dataset = std::make_shared<test::Sizes>(2 * kCropRows + 11);
  for (const char* settings :
       {"crop_pct = 0.875", "eval_resize = 30", "interpolation = \"bilinear\""}) {
    const AugmentRecipe recipe = test::make_recipe("deit", kCropSide, settings);
    for (int rank = 0; rank < 2; ++rank) {
      LoaderOptions options = crop_options(2);
      options.shard = {rank, 2};
      EvalLoader host(dataset, recipe, options);
      CropEvalLoader crops(dataset, recipe, options, /*pinned=*/false);
      for (const std::int64_t limit : {std::int64_t{0}, std::int64_t{5}, kCropRows + 13}) {
        host.start(limit);
        crops.start(limit);
        expect_eval_batches(crops, host);
      }
    }
  }
}

TEST(CropLoader, SaysWhichRecipesAreNotItsOwn) {
  EXPECT_EQ(CropLoader::why_not(test::make_recipe("deit", 32)), "");
  EXPECT_EQ(CropLoader::why_not(test::make_recipe("cifar", 32)),
            "crop = \"pad\" is made on the host");
}

// Rows follow each other without gaps, and each source is no larger than its window needs.
TEST(CropRoom, PlacesRowsBehindEachOther) {
  augment::CropRoom room;
  const auto place = [&](const CropPlan& plan) {
    augment::CropRow row = augment::crop_row(plan, 7, 3);
    room.place(row);
    return row;
  };
  const ResizedWindow half{{40, 60}, {20, 20}, {0, 0, 20, 20}, Filter::Bilinear};
  const auto first = place({.source = {5, 6, 40, 60}, .resized = half, .padded = {}});
  const auto second = place({.source = {0, 0, 20, 20}, .resized = {}, .padded = {}});
  EXPECT_EQ(first.source, (Box{0, 0, 40, 60}));
  EXPECT_EQ(second.pixels, 3 * 40 * 60);
  EXPECT_EQ(second.rows, 3 * 20 * 60);
  // Bilinear support at half size: 2 pixels either side, 2 * 2 + 1 weights; at a third: 3.
  EXPECT_EQ(second.taps, 20 * (2 + 5) + 20 * (2 + 7));
  EXPECT_EQ(second.resized.whole, (Size{20, 20}));
  EXPECT_EQ(room.pixels, 3 * (40 * 60 + 20 * 20));
}

}  // namespace
}  // namespace ablate
