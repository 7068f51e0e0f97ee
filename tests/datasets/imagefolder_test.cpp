#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"
#include "tests/support/temp_folder.h"
#include "tests/transforms/image_fixtures.h"
#include "tests/transforms/image_writers.h"
#include "tests/transforms/jpeg_samples.h"

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

Bytes jpeg() { return test::from_hex(test::kJpeg420); }

/// A file whose header is whole and whose scan is not.
Bytes cut_jpeg() {
  Bytes bytes = jpeg();
  bytes.resize(bytes.size() - 20);
  return bytes;
}

/// Two pixels of 16 bits: 0x1234 and 0xFEDC, grey.
Bytes deep_png() {
  return test::write_png({.rows = {0x12, 0x34, 0xFE, 0xDC},
                          .width = 2,
                          .height = 1,
                          .depth = 16,
                          .color = PngColor::Grey});
}

Bytes grey_png() {
  return test::write_png(
      {.rows = {10, 200, 77}, .width = 3, .height = 1, .depth = 8, .color = PngColor::Grey});
}

/// train: cat {a.JPEG, b.png}, dog {c.jpg}; val: dog {d.png}.
struct Tree {
  TempFolder folder;

  Tree() {
    write_bytes(folder / "train/cat/b.png", grey_png());
    write_bytes(folder / "train/cat/a.JPEG", jpeg());
    write_bytes(folder / "train/dog/c.jpg", jpeg());
    write_bytes(folder / "train/dog/notes.txt", {1, 2, 3});
    write_bytes(folder / "val/dog/d.png", deep_png());
  }
  DatasetSplits open(const char* settings = "") const {
    return open_dataset("imagefolder", settings, folder.path());
  }
};

TEST(ImageFolder, NumbersClassesAndFilesInByteOrder) {
  const DatasetSplits splits = Tree().open();
  ASSERT_EQ(splits.train->size(), 3);
  EXPECT_EQ(splits.train->facts().classes, 2);
  EXPECT_EQ(splits.train->facts().image_size, 0);
  EXPECT_EQ(splits.train->label(0), 0);
  EXPECT_EQ(splits.train->label(1), 0);
  EXPECT_EQ(splits.train->label(2), 1);
  ASSERT_EQ(splits.test->size(), 1);
  EXPECT_EQ(splits.test->label(0), 1) << "the class keeps its number where others are missing";
}

TEST(ImageFolder, DecodesColourGreyAndDeepFiles) {
  const Tree tree;
  const DatasetSplits splits = tree.open();
  EXPECT_EQ(test::crc32(load_image(*splits.train, 0)), test::kJpeg420Crc);
  EXPECT_EQ(load_image(*splits.train, 1).pixels, (Bytes{10, 10, 10, 200, 200, 200, 77, 77, 77}));
  EXPECT_EQ(load_image(*splits.test, 0).pixels, (Bytes{0x12, 0x12, 0x12, 0xFE, 0xFE, 0xFE}));
}

TEST(ImageFolder, PrintsNamesAndSizes) {
  const Tree tree;
  const std::string before = tree.open().train->fingerprint();
  EXPECT_EQ(tree.open().train->fingerprint(), before);
  fs::rename(tree.folder / "train/dog/c.jpg", tree.folder / "train/dog/e.jpg");
  EXPECT_NE(tree.open().train->fingerprint(), before);
}

TEST(ImageFolder, NamesACorruptFileAndTheWayOut) {
  const Tree tree;
  for (const Bytes& broken : {cut_jpeg(), Bytes{1, 2, 3}, Bytes{}}) {
    write_bytes(tree.folder / "train/dog/c.jpg", broken);
    const DatasetSplits splits = tree.open();
    const std::string message = message_of<Error>([&] { load_image(*splits.train, 2); });
    EXPECT_NE(message.find("train/dog/c.jpg"), std::string::npos) << message;
    EXPECT_NE(message.find("on_corrupt"), std::string::npos) << message;
  }
}

TEST(ImageFolder, LeavesOutAndReportsCorruptFilesWhenAsked) {
  const Tree tree;
  write_bytes(tree.folder / "train/cat/ab.jpg", cut_jpeg());
  testing::internal::CaptureStderr();
  const DatasetSplits splits = tree.open("on_corrupt = 'skip'");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("train/cat/ab.jpg"), std::string::npos) << log;
  EXPECT_NE(log.find("1 of 4 images were left out"), std::string::npos) << log;
  ASSERT_EQ(splits.train->size(), 3);
  EXPECT_EQ(splits.train->label(2), 1);
  EXPECT_EQ(test::crc32(load_image(*splits.train, 2)), test::kJpeg420Crc);
}

TEST(ImageFolder, RefusesATreeThatIsNone) {
  const auto refusal = [](const Tree& tree, const char* settings = "") {
    return message_of<SpecError>([&] { tree.open(settings); });
  };
  Tree misplaced;
  write_bytes(misplaced.folder / "val/dogs/x.jpg", jpeg());
  const std::string other = refusal(misplaced);
  EXPECT_NE(other.find("\"dogs\" does not occur in the training part"), std::string::npos);
  EXPECT_NE(other.find("did you mean \"dog\"?"), std::string::npos) << other;

  Tree empty;
  fs::create_directories(empty.folder / "train/eel");
  EXPECT_NE(refusal(empty).find("class without an image: 1: eel"), std::string::npos);
  EXPECT_EQ(empty.open("missing_classes = 'keep'").train->facts().classes, 3);

  Tree without;
  fs::remove_all(without.folder / "val");
  EXPECT_NE(refusal(without).find("expected a folder val or validation or test"),
            std::string::npos);
  fs::remove_all(without.folder / "train");
  EXPECT_NE(refusal(without).find("expected a folder train"), std::string::npos);
  write_bytes(without.folder / "train/x.jpg", jpeg());
  EXPECT_NE(refusal(without).find("one folder a class"), std::string::npos);

  Tree rotten;
  write_bytes(rotten.folder / "val/dog/d.png", {0});
  EXPECT_NE(refusal(rotten, "on_corrupt = 'skip'").find("no image"), std::string::npos);
}

TEST(ImageFolder, ReadsRealPhotos) {
  const fs::path photos = test::shared_folder() / "data/imagenet-sample/train";
  if (!fs::is_directory(photos)) {
    GTEST_SKIP() << "needs data/imagenet-sample below ABLATE_SHARED or ../shared";
  }
  const TempFolder root;
  fs::create_directory_symlink(fs::canonical(photos), root / "train");
  fs::create_directory_symlink(fs::canonical(photos), root / "test");
  const DatasetSplits splits = open_dataset("imagefolder", "", root.path());
  ASSERT_EQ(splits.train->size(), 200);
  EXPECT_EQ(splits.train->facts().classes, 200);
  for (std::int64_t i = 0; i < 200; ++i) EXPECT_EQ(splits.train->label(i), i);
  const Image first = load_image(*splits.train, 0);
  EXPECT_GT(first.width, 50);
  EXPECT_EQ(first, load_image(*splits.test, 0));
}

}  // namespace
}  // namespace ablate
