#include <set>

#include <gtest/gtest.h>

#include "datasets/dense_transforms.h"
#include "datasets/loader.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"
#include "tests/support/temp_folder.h"
#include "tests/transforms/image_writers.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::load_image;
using test::message_of;
using test::open_dataset;
using test::PngColor;
using test::TempFolder;
using test::write_bytes;
using test::write_jpeg;
using test::write_png;

struct Annotation {
  int width = 8, height = 6;
  Bytes values{};  ///< all 1 where empty
  PngColor color = PngColor::Grey;
  int depth = 8;
};

LabelMap labels_of(const Dataset& dataset, std::int64_t index) {
  LabelMap labels;
  dataset.load_labels(index, labels);
  return labels;
}

/// A data set of the layout with two training and one validation pair.
class Ade20kFolder : public testing::Test {
 protected:
  void SetUp() override {
    write("training", "ADE_train_00000001", {});
    write("training", "ADE_train_00000002", {});
    write("validation", "ADE_val_00000001", {});
  }

  fs::path image(const std::string& part, const std::string& stem) const {
    return folder_.path() / "images" / part / (stem + ".jpg");
  }
  fs::path annotation(const std::string& part, const std::string& stem) const {
    return folder_.path() / "annotations" / part / (stem + ".png");
  }

  void write(const std::string& part, const std::string& stem, const Annotation& annotation_file,
             int width = 8, int height = 6) const {
    const Bytes pixels(static_cast<std::size_t>(width * height * 3), 100);
    write_bytes(image(part, stem), write_jpeg(pixels, width, height, test::JpegColor::Rgb));
    Annotation a = annotation_file;
    if (a.values.empty()) a.values.assign(static_cast<std::size_t>(a.width * a.height), 1);
    Bytes palette;
    if (a.color == PngColor::Palette) palette.assign(256 * 3, 50);
    write_bytes(annotation(part, stem), write_png({.rows = a.values,
                                                   .width = a.width,
                                                   .height = a.height,
                                                   .depth = a.depth,
                                                   .color = a.color,
                                                   .palette = palette}));
  }

  DatasetSplits open() const { return open_dataset("ade20k", "", folder_.path()); }
  std::string refusal() const {
    return message_of<SpecError>([&] { open(); });
  }
  std::string fault_of_labels(const Annotation& a) const {
    write("validation", "ADE_val_00000001", a);
    return message_of<Error>([&] { labels_of(*open().test, 0); });
  }

  TempFolder folder_;
};

TEST_F(Ade20kFolder, HasPairsInTheOrderOfTheirNames) {
  const DatasetSplits splits = open();
  EXPECT_EQ(splits.train->size(), 2);
  EXPECT_EQ(splits.test->size(), 1);
  EXPECT_EQ(splits.train->facts().classes, 150);
  EXPECT_TRUE(splits.train->facts().dense);
  EXPECT_EQ(splits.train->facts().image_size, 0);
  EXPECT_EQ(load_image(*splits.train, 1).width, 8);
}

TEST_F(Ade20kFolder, ZeroIsNoClassAndTheOthersMoveDown) {
  Bytes values(48, 7);
  values[0] = 0;
  values[1] = 1;
  values[2] = 150;
  values[47] = 255;
  for (const PngColor color : {PngColor::Grey, PngColor::Palette}) {
    write("validation", "ADE_val_00000001", {.values = values, .color = color});
    const LabelMap labels = labels_of(*open().test, 0);
    EXPECT_EQ(labels.classes[0], LabelMap::kIgnore);
    EXPECT_EQ(labels.classes[1], 0);
    EXPECT_EQ(labels.classes[2], 149);
    EXPECT_EQ(labels.classes[3], 6);
    EXPECT_EQ(labels.classes[47], LabelMap::kIgnore);
  }
}

TEST_F(Ade20kFolder, IsFoundFromTheFolderAboveToo) {
  const TempFolder above;
  fs::create_directories(above.path());
  fs::rename(folder_.path(), above.path() / "ADEChallengeData2016");
  EXPECT_EQ(open_dataset("ade20k", "", above.path()).train->size(), 2);
}

TEST_F(Ade20kFolder, MissingPartnersAreNamed) {
  fs::remove(annotation("training", "ADE_train_00000002"));
  const std::string message = refusal();
  EXPECT_NE(message.find("ADE_train_00000002.jpg"), std::string::npos) << message;
  EXPECT_NE(message.find("annotations/training"), std::string::npos) << message;
  write("training", "ADE_train_00000002", {});
  fs::remove(image("validation", "ADE_val_00000001"));
  EXPECT_NE(refusal().find("images/validation"), std::string::npos) << refusal();
}

TEST_F(Ade20kFolder, LabelsOfAnotherSizeAreRefused) {
  const std::string message = fault_of_labels({.width = 8, .height = 5});
  EXPECT_NE(message.find("8 x 5"), std::string::npos) << message;
  EXPECT_NE(message.find("8 x 6"), std::string::npos) << message;
  EXPECT_NE(message.find("ADE_val_00000001.png"), std::string::npos) << message;
}

TEST_F(Ade20kFolder, ValuesAndKindsThatAreNoClassesAreRefused) {
  const std::string value = fault_of_labels({.values = Bytes(48, 151)});
  EXPECT_NE(value.find("value 151"), std::string::npos) << value;
  const std::string colours = fault_of_labels({.values = Bytes(48 * 3, 1), .color = PngColor::Rgb});
  EXPECT_NE(colours.find("one channel"), std::string::npos) << colours;
  write_bytes(annotation("validation", "ADE_val_00000001"), {1, 2, 3, 4});
  EXPECT_NE(message_of<Error>([&] { labels_of(*open().test, 0); }).find("not a PNG"),
            std::string::npos);
}

TEST_F(Ade20kFolder, TheFullReleaseIsToldFromIt) {
  const TempFolder other;
  fs::create_directories(other.path() / "images" / "ADE");
  const std::string message =
      message_of<SpecError>([&] { open_dataset("ade20k", "", other.path()); });
  EXPECT_NE(message.find("full ADE20K release"), std::string::npos) << message;
  EXPECT_NE(message.find("ADEChallengeData2016"), std::string::npos) << message;
}

TEST_F(Ade20kFolder, AHoldoutKeepsPairsTogether) {
  write("training", "ADE_train_00000001", {.values = Bytes(48, 11)});
  write("training", "ADE_train_00000002", {.values = Bytes(48, 22)});
  const DatasetSplits splits = carve_holdout(open(), 1);
  std::set<int> seen{labels_of(*splits.train, 0).classes[0],
                     labels_of(*splits.holdout, 0).classes[0]};
  EXPECT_EQ(seen, (std::set<int>{10, 21}));
}

// Real pairs: decoded, every label one of 150, batches as the network gets them.
TEST(Ade20kSamples, GoThroughTheWholePipeline) {
  const fs::path root = test::shared_folder() / "data/ade20k-sample/ADEChallengeData2016";
  if (!fs::exists(root)) GTEST_SKIP() << root << " is not there";
  const DatasetSplits splits = open_dataset("ade20k", "", root);
  ASSERT_EQ(splits.train->size(), 3);
  EXPECT_EQ(splits.train->facts().class_names.front(), "wall");
  EXPECT_EQ(splits.train->facts().class_names.back(), "flag");
  const AugmentRecipe recipe = test::make_recipe(kDenseAugmentation, 128);
  TrainLoader loader(splits.train, recipe, {.seed = 2, .global_batch = 3, .threads = 0});
  loader.seek(0, 0);
  const Batch batch = loader.next();
  EXPECT_EQ(batch.images.sizes(), (std::vector<std::int64_t>{3, 3, 128, 128}));
  EXPECT_EQ(batch.label_maps.sizes(), (std::vector<std::int64_t>{3, 128, 128}));
  const at::Tensor labelled = batch.label_maps != int{LabelMap::kIgnore};
  EXPECT_GT(labelled.to(at::kDouble).mean().item<double>(), 0.5);
  EXPECT_LT(batch.label_maps.masked_select(labelled).max().item<int>(), 150);
  EvalLoader eval(splits.test, recipe, {.global_batch = 3, .threads = 0});
  eval.start();
  ASSERT_EQ(eval.batches(), 3) << "one image at a time, as sizes vary";
  const Batch first = eval.next();
  EXPECT_EQ(first.images.sizes(), (std::vector<std::int64_t>{1, 3, 128, 171}));
  EXPECT_EQ(first.label_maps.sizes(), (std::vector<std::int64_t>{1, 512, 683}));
}

}  // namespace
}  // namespace ablate
