#include "datasets/sample_reader.h"

#include <gtest/gtest.h>

#include "datasets/loader.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"
#include "tests/support/temp_folder.h"
#include "tests/transforms/image_fixtures.h"
#include "tests/transforms/image_writers.h"

namespace ablate {
namespace {

using test::Bytes;

Bytes photo(int width, int height, int seed) {
  const Image image = test::noise_image(width, height, static_cast<std::uint64_t>(seed));
  return test::write_jpeg(image.pixels, width, height, test::JpegColor::Rgb,
                          {.quality = 80, .across = 2, .down = 2, .progressive = seed % 3 == 0});
}

/// A folder of twelve images of two classes, JPEGs of several sizes and a PNG.
struct Photos {
  test::TempFolder folder;

  Photos() {
    for (int i = 0; i < 11; ++i) {
      test::write_bytes(file(i), photo(40 + 13 * i, 120 - 7 * i, i));
    }
    const Image drawn = test::noise_image(50, 44, 99);
    test::write_bytes(folder / "train/b/drawn.png",
                      test::write_png({drawn.pixels, 50, 44, 8, test::PngColor::Rgb}));
    test::write_bytes(folder / "val/a/0.jpg", photo(90, 33, 50));
  }
  std::filesystem::path file(int i) const {
    return folder / cat("train/", i % 2 == 0 ? "a/" : "b/", 10 + i, ".jpg");
  }
  DatasetSplits open() const { return test::open_dataset("imagefolder", "", folder.path()); }
};

// Batches from parts of files are those of whole images.
TEST(SampleReader, LoadersSeeWhatWholeImagesGive) {
  const Photos photos;
  const DatasetSplits splits = photos.open();
  const LoaderOptions options{.seed = 4, .global_batch = 6, .threads = 2};
  const AugmentRecipe recipe = test::make_recipe("deit", 32, "mixup = 0.0\ncutmix = 0.0");
  const Normalization& statistics = splits.train->facts().normalization;
  const TrainTransform transform(recipe, statistics);
  TrainLoader train(splits.train, recipe, options);
  train.seek(2, 0);
  const Batch batch = train.next();
  at::Tensor expected = at::empty({3, 32, 32}, at::kFloat);
  std::map<std::int64_t, std::uint32_t> drawn;
  for (std::int64_t row = 0; row < 6; ++row) {
    const std::int64_t index = batch.indices[static_cast<std::size_t>(row)];
    const std::uint64_t key = sample_key(2, static_cast<std::uint64_t>(index), drawn[index]++);
    transform(test::load_image(*splits.train, index), {4, key}, expected.data_ptr<float>());
    EXPECT_TRUE(at::equal(batch.images[row], expected)) << row;
  }
  EXPECT_GT(train.take_stage_seconds().of[static_cast<std::size_t>(LoadStage::Decode)], 0);
  EvalLoader eval(splits.train, recipe, options);
  eval.start();
  for (std::int64_t first = 0; first < 12; first += 6) {
    const at::Tensor images = eval.next().images;
    for (std::int64_t row = 0; row < 6; ++row) {
      EvalTransform(recipe, statistics)(test::load_image(*splits.train, first + row),
                                        expected.data_ptr<float>());
      EXPECT_TRUE(at::equal(images[row], expected)) << first + row;
    }
  }
}

// The set's own words, with the file and the way out, also where only a part was asked for.
TEST(SampleReader, ErrorsAreThoseOfTheSet) {
  const Photos photos;
  Bytes half = photo(64, 64, 1);
  half.resize(half.size() / 2);
  test::write_bytes(photos.file(1), half);
  const DatasetSplits splits = photos.open();
  const auto message = test::message_of<Error>([&] {
    SampleReader reader;
    StageClock clock;
    StageTimer timer(clock);
    for (std::int64_t i = 0; i < splits.train->size(); ++i) {
      const Size size = reader.open(*splits.train, i, timer);
      reader.read({0, 0, size.width, size.height}, timer);
    }
  });
  EXPECT_NE(message.find("train/b/11.jpg"), std::string::npos) << message;
  EXPECT_NE(message.find("on_corrupt"), std::string::npos) << message;
}

}  // namespace
}  // namespace ablate
