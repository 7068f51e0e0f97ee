#include <array>
#include <filesystem>

#include <gtest/gtest.h>

#include "datasets/store/convert.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/store/image_sets.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::load_image;
using test::open_dataset;
using test::TempFolder;

/// The same images as folder, tar shards and packed set.
struct ThreeForms {
  TempFolder root;

  ThreeForms() {
    const fs::path folder = root / "imagefolder";
    test::write_image_folder(folder, 3, 2);
    const StoredParts parts = open_image_folder(folder, {});
    for (const auto& [name, part] :
         {std::pair("train", &parts.train), std::pair("val", &parts.test)}) {
      std::vector<std::pair<std::string, std::string>> members;
      const StoredDataset& samples = *part->samples;
      std::string buffer;
      for (std::int64_t i = 0; i < samples.size(); ++i) {
        const StoredImage stored = *samples.stored(i, buffer);
        const std::string key = "s" + std::to_string(i);
        members.emplace_back(key + ".cls", std::to_string(samples.label(i)));
        members.emplace_back(key + ".jpg", std::string(stored.bytes.begin(), stored.bytes.end()));
      }
      test::write_tar(root / "webdataset" / cat("set-", name, "-0.tar"), members);
      convert_part(*part, PackFiles(root / "packed", name), {});
    }
  }
};

TEST(StoredSets, AreTheSameImagesInEveryForm) {
  const ThreeForms forms;
  const DatasetSplits folder = open_dataset("imagefolder", "", forms.root / "imagefolder");
  for (const char* name : {"webdataset", "packed"}) {
    const DatasetSplits other = open_dataset(name, "", forms.root / name);
    for (const auto& [part, twin] :
         {std::pair(folder.train, other.train), std::pair(folder.test, other.test)}) {
      ASSERT_EQ(twin->size(), part->size());
      EXPECT_EQ(twin->facts().classes, part->facts().classes);
      for (std::int64_t i = 0; i < part->size(); ++i) {
        EXPECT_EQ(twin->label(i), part->label(i));
        EXPECT_EQ(load_image(*twin, i), load_image(*part, i));
      }
    }
  }
}

// Held-out samples keep the way to their stored form.
TEST(StoredSets, GiveTheirStoredFormThroughSubsets) {
  const ThreeForms forms;
  const DatasetSplits whole = open_dataset("packed", "", forms.root / "packed");
  const DatasetSplits split = carve_holdout(whole, 2);
  std::string buffer;
  for (std::int64_t i = 0; i < split.holdout->size(); ++i) {
    Image image;
    decode_stored(*split.holdout->stored(i, buffer), image);
    EXPECT_EQ(image, load_image(*split.holdout, i));
  }
  EXPECT_EQ(open_dataset("synthetic", "train_size = 4").train->stored(0, buffer), std::nullopt);
}

TEST(StoredSets, TakeAnotherNormalization) {
  const ThreeForms forms;
  for (const char* name : {"imagefolder", "webdataset", "packed"}) {
    const fs::path root = forms.root / name;
    const auto usual = open_dataset(name, "", root).test->facts().normalization;
    EXPECT_EQ(usual.mean, (std::array{0.485F, 0.456F, 0.406F})) << name;
    EXPECT_EQ(usual.std, (std::array{0.229F, 0.224F, 0.225F})) << name;
    const auto half = open_dataset(name, "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.25]", root)
                          .train->facts()
                          .normalization;
    EXPECT_EQ(half.mean, (std::array{0.5F, 0.5F, 0.5F})) << name;
    EXPECT_EQ(half.std, (std::array{0.5F, 0.5F, 0.25F})) << name;
    EXPECT_NE(test::message_of<SpecError>([&] {
                open_dataset(name, "mean = [0.5]", root);
              }).find("accepted: 3"),
              std::string::npos);
    EXPECT_THROW(open_dataset(name, "std = [0.5, 0, 0.5]", root), SpecError) << name;
  }
}

TEST(StoredSets, FingerprintsFollowContentAndLabels) {
  const ThreeForms one, two;
  const auto print = [](const ThreeForms& forms, const char* name) {
    return open_dataset(name, "", forms.root / name).train->fingerprint();
  };
  for (const char* name : {"imagefolder", "webdataset", "packed"}) {
    EXPECT_EQ(print(one, name), print(two, name)) << name;
  }
  // Another content of equal length: seen where contents have checksums.
  const fs::path file = two.root / "imagefolder/train/class0/0.jpg";
  std::string bytes = read_file(file);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  test::write_text(file, bytes);
  fs::remove_all(two.root / "packed");
  convert_part(open_image_folder(two.root / "imagefolder", {}).train,
               PackFiles(two.root / "packed", "train"), {});
  convert_part(open_image_folder(two.root / "imagefolder", {}).test,
               PackFiles(two.root / "packed", "val"), {});
  EXPECT_NE(print(one, "packed"), print(two, "packed"));
}

TEST(StoredSets, PackRealPhotos) {
  const fs::path photos = test::shared_folder() / "data/imagenet-sample";
  if (!fs::is_directory(photos)) {
    GTEST_SKIP() << "needs data/imagenet-sample below ABLATE_SHARED or ../shared";
  }
  const TempFolder root;
  for (const char* part : {"train", "val"}) {
    fs::create_directory_symlink(fs::canonical(photos / "train"), root / part);
  }
  const StoredPart source = open_image_folder(root.path(), {}).train;
  const PackFiles files(root / "packed", "train");
  const PackForm form{.kind = PackForm::Kind::Jpeg, .side = 96, .quality = 90};
  const ConvertReport report = convert_part(source, files, {.form = form, .threads = 2});
  EXPECT_EQ(report.samples, 200);
  EXPECT_EQ(report.findings.kinds().size(), 0U);
  const auto pack = open_pack_part(files);
  EXPECT_EQ(pack->facts().classes, 200);
  for (std::int64_t i = 0; i < 200; i += 9) {
    const Image image = load_image(*pack, i), original = load_image(*source.samples, i);
    EXPECT_EQ(std::min(image.width, image.height),
              std::min(96, std::min(original.width, original.height)));
    EXPECT_NEAR(static_cast<double>(image.width) / image.height,
                static_cast<double>(original.width) / original.height, 0.03);
  }
  EXPECT_LT(report.bytes, 200 * 20'000U);
}

}  // namespace
}  // namespace ablate
