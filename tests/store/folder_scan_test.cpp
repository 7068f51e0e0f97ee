#include "datasets/store/folder_scan.h"

#include <gtest/gtest.h>

#include "datasets/store/class_list.h"
#include "datasets/store/parts.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/store/image_sets.h"
#include "tests/support/slurm.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::noise_jpeg;
using test::TempFolder;
using test::write_text;

/// Names and labels of a part: "class0/0.jpg 0".
std::vector<std::string> rows_of(const StoredPart& part) {
  std::vector<std::string> rows;
  const SampleIndex& index = part.samples->index();
  for (std::int64_t i = 0; i < index.size(); ++i) {
    rows.push_back(cat(index.name(i), " ", part.samples->label(i)));
  }
  return rows;
}

/// A val folder of three images without class folders.
struct FlatSet {
  TempFolder folder;

  FlatSet() {
    write_text(folder / "train/n02/a.jpg", noise_jpeg(1));
    write_text(folder / "train/n01/b.jpg", noise_jpeg(2));
    for (int i = 1; i <= 3; ++i) {
      write_text(folder / ("val/ILSVRC2012_val_0000000" + std::to_string(i) + ".JPEG"),
                 noise_jpeg(10 + static_cast<std::uint64_t>(i)));
    }
  }
  std::vector<std::int64_t> labels() const {
    const StoredParts parts = open_image_folder(folder.path(), {});
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < parts.test.samples->size(); ++i) {
      labels.push_back(parts.test.samples->label(i));
    }
    return labels;
  }
};

TEST(FolderScan, OrdersClassesAndFilesByBytesForAnyNumberOfThreads) {
  const TempFolder root;
  test::write_image_folder(root.path(), 11, 3);
  const FolderClasses classes = folder_classes(root.path(), root / "train");
  EXPECT_EQ(classes.names.at(2), "class10") << "byte order";
  const FolderPart part{root.path(), root / "train", classes};
  Findings findings;
  const std::string first = scan_folder(part, 1, findings).finish();
  EXPECT_EQ(scan_folder(part, 5, findings).finish(), first);
  EXPECT_TRUE(findings.empty());
  const SampleIndex index{first};
  EXPECT_EQ(index.size(), 33);
  EXPECT_EQ(index.name(3), "class1/0.jpg");
  EXPECT_EQ(index.entry(3).label, 1U);
  EXPECT_EQ(index.entry(3).length, fs::file_size(root / "train/class1/0.jpg"));
}

TEST(FolderScan, CountsAndNamesWhatItLeavesOut) {
  const TempFolder root;
  test::write_image_folder(root.path(), 2, 2);
  write_text(root / "train/class0/notes.txt", "x");
  write_text(root / "train/class1/scan.webp", "x");
  write_text(root / "train/class0/0.png", test::small_png());
  write_text(root / "train/README", "x");
  write_text(root / "train/stray.jpg", noise_jpeg(1));
  fs::create_directories(root / "train/class1/images");
  const Findings findings = open_image_folder(root.path(), {}).train.findings;
  EXPECT_EQ(findings.count(kNoImage), 3U) << findings.line(kNoImage);
  for (const char* name : {"class0/notes.txt", "class1/scan.webp", "README"}) {
    EXPECT_NE(findings.line(kNoImage).find(name), std::string::npos) << name;
  }
  EXPECT_EQ(findings.line(kSameName), cat(kSameName, ": 1: class0/0"));
  EXPECT_EQ(findings.kinds().size(), 4U) << "the stray image and the folder";
}

TEST(FolderScan, NumbersClassesByTheListWhereThereIsOne) {
  const TempFolder root;
  test::write_image_folder(root.path(), 2, 1);
  write_text(root / "classes.txt", "class1 7 seven\nclass9\n\nclass0\n");
  const StoredParts parts = open_image_folder(root.path(), {});
  EXPECT_EQ(parts.train.samples->facts().classes, 3);
  EXPECT_EQ(rows_of(parts.train), (std::vector<std::string>{"class0/0.jpg 2", "class1/0.jpg 0"}));
  EXPECT_EQ(parts.train.findings.line(kEmptyClass), cat(kEmptyClass, ": 1: class9"));

  const std::string message =
      message_of<SpecError>([&] { splits_of(open_image_folder(root.path(), {}), {}); });
  EXPECT_NE(message.find("class9"), std::string::npos) << message;
  EXPECT_NE(message.find("missing_classes"), std::string::npos) << message;
  EXPECT_EQ(splits_of(open_image_folder(root.path(), {}), {.keep_missing = true}).train->size(), 2);

  write_text(root / "classes.txt", "class1\nclass1\n");
  EXPECT_NE(message_of<SpecError>([&] {
              open_image_folder(root.path(), {});
            }).find("classes.txt:2: class \"class1\" comes twice"),
            std::string::npos);
  write_text(root / "classes.txt", "class1\n");
  EXPECT_NE(message_of<SpecError>([&] {
              open_image_folder(root.path(), {});
            }).find("class \"class0\" does not occur in classes.txt"),
            std::string::npos);
}

TEST(FolderScan, LabelsAFlatFolderByNameOrOrder) {
  const FlatSet set;
  const std::vector<std::int64_t> expected{1, 0, 1};
  write_text(set.folder / "val_labels.txt",
             "ILSVRC2012_val_00000002.JPEG n01\nILSVRC2012_val_00000001\tn02\n"
             "ILSVRC2012_val_00000003.JPEG 1\n");
  EXPECT_EQ(set.labels(), expected);
  fs::remove(set.folder / "val_labels.txt");
  // Kaggle's: boxes follow the class.
  write_text(set.folder / "LOC_val_solution.csv",
             "ImageId,PredictionString\nILSVRC2012_val_00000003,n02 1 2 3 4 n02 5 6 7 8 \r\n"
             "ILSVRC2012_val_00000001,n02 1 2 3 4 \nILSVRC2012_val_00000002,n01 1 2 3 4 \n");
  EXPECT_EQ(set.labels(), expected);
  fs::remove(set.folder / "LOC_val_solution.csv");
  write_text(set.folder / "imagenet_2012_validation_synset_labels.txt", "n02\nn01\nn02\n");
  EXPECT_EQ(set.labels(), expected);
  fs::remove(set.folder / "imagenet_2012_validation_synset_labels.txt");
  // ILSVRC2012_IDs are other numbers than those of sorted wnids.
  write_text(set.folder / "ILSVRC2012_validation_ground_truth.txt", "490\n361\n490\n");
  EXPECT_NE(message_of<SpecError>([&] { set.labels(); }).find("ILSVRC2012_ids.txt: expected"),
            std::string::npos);
  write_text(set.folder / "ILSVRC2012_ids.txt", "361 n01\n490 n02\n");
  EXPECT_EQ(set.labels(), expected);
}

TEST(FolderScan, SaysWhatIsWrongWithLabels) {
  const FlatSet set;
  EXPECT_NE(message_of<SpecError>([&] { set.labels(); }).find("val_labels.txt"), std::string::npos);
  const auto refusal = [&](const char* text) {
    write_text(set.folder / "val_labels.txt", text);
    return message_of<SpecError>([&] { set.labels(); });
  };
  EXPECT_NE(refusal("0\n1\n").find("2 labels for 3 images"), std::string::npos);
  EXPECT_NE(refusal("0\n1\n2\n").find("val_labels.txt:3: class 2; accepted: 0 to 1"),
            std::string::npos);
  EXPECT_NE(refusal("0\nn1\n0\n").find("val_labels.txt:2: class \"n1\""), std::string::npos);
  EXPECT_NE(refusal("a.jpg n01\n").find("no label for ILSVRC2012_val_00000001.JPEG"),
            std::string::npos);
  EXPECT_NE(refusal("a.jpg n01\nn02\n").find("val_labels.txt:2: expected a name and a class"),
            std::string::npos);
  EXPECT_NE(refusal("a 0\na 1\n").find("a has a label already"), std::string::npos);
}

/// Folders that were changed just now are not believed to stay as they are.
void let_an_hour_pass(const fs::path& root) {
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_directory()) continue;
    fs::last_write_time(entry, fs::last_write_time(entry) - std::chrono::hours(1));
  }
}

/// What the cache holds.
std::vector<fs::path> kept_in(const TempFolder& cache) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(cache.path())) files.push_back(entry.path());
  return files;
}

TEST(IndexCache, IsTakenWhileNamesAreTheSameAndOnlyThen) {
  const TempFolder root, cache;
  test::Variables variables;
  variables.set("ABLATE_CACHE", cache.path().string());
  test::write_image_folder(root.path(), 2, 2);
  let_an_hour_pass(root.path());
  const std::string print = open_image_folder(root.path(), {}).train.samples->fingerprint();
  ASSERT_EQ(kept_in(cache).size(), 2U) << "train and val";

  // A changed size inside an unchanged folder is found, as all of these files are looked at.
  write_text(root / "train/class0/0.jpg", noise_jpeg(77, 40, 40));
  const std::string resized = open_image_folder(root.path(), {}).train.samples->fingerprint();
  EXPECT_NE(resized, print);
  write_text(root / "train/class1/new.jpg", noise_jpeg(78));
  EXPECT_EQ(open_image_folder(root.path(), {}).train.samples->size(), 5);
  EXPECT_EQ(kept_in(cache).size(), 2U) << "the old ones are replaced";

  // What it says is really taken: a kept index with a sample less is believed.
  let_an_hour_pass(root.path());
  open_image_folder(root.path(), {});
  for (const fs::path& file : kept_in(cache)) {
    const SampleIndex kept(file);
    if (kept.size() != 5) continue;
    IndexBuilder other = without(kept, std::vector<std::int64_t>{4});
    write_text(file, other.finish());
  }
  EXPECT_EQ(open_image_folder(root.path(), {}).train.samples->size(), 4);

  for (const fs::path& file : kept_in(cache)) write_text(file, "nonsense");
  EXPECT_EQ(open_image_folder(root.path(), {}).train.samples->size(), 5);
}

TEST(IndexCache, KeepsWhatWasFoundAndWhatWasLeftOut) {
  const TempFolder root, cache;
  test::Variables variables;
  variables.set("ABLATE_CACHE", cache.path().string());
  test::write_image_folder(root.path(), 2, 2);
  write_text(root / "train/class0/broken.jpg", "no image");
  write_text(root / "train/class1/really_png.jpg", test::small_png());
  let_an_hour_pass(root.path());
  const StoredSettings skip{.skip_corrupt = true};
  for (int time = 0; time < 2; ++time) {
    const StoredPart part = open_image_folder(root.path(), skip).train;
    EXPECT_EQ(part.samples->size(), 5);
    EXPECT_EQ(part.findings.count(kOtherExtension), 1U);
    EXPECT_NE(part.findings.line(kOtherExtension).find("really_png.jpg"), std::string::npos);
    EXPECT_NE(part.findings.line("left out").find("broken.jpg: unknown image format"),
              std::string::npos);
  }
  EXPECT_EQ(open_image_folder(root.path(), {}).train.samples->size(), 6) << "another policy";
}

TEST(IndexCache, IsDoneWithoutWhereItCannotBeWritten) {
  const TempFolder root;
  test::Variables variables;
  variables.set("ABLATE_CACHE", "/proc/nowhere");
  test::write_image_folder(root.path(), 1, 2);
  EXPECT_EQ(open_image_folder(root.path(), {}).train.samples->size(), 2);
}

}  // namespace
}  // namespace ablate
