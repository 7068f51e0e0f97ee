#include "datasets/store/shard_scan.h"

#include <gtest/gtest.h>

#include "datasets/store/parts.h"
#include "datasets/store/tar_members.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/store/image_sets.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::noise_jpeg;
using test::TempFolder;
using test::write_tar;

TEST(TarMembers, ArePlacedWhereTheirBytesLie) {
  const std::string longest(300, 'n');
  const std::vector<std::pair<std::string, std::string>> members{
      {"a.txt", "first"},
      {"folder/" + longest + ".txt", std::string(5000, 'x')},
      {"empty", ""},
      {"last.bin", std::string(512, '\0') + "end"}};
  for (const int format : {ARCHIVE_FORMAT_TAR_GNUTAR, ARCHIVE_FORMAT_TAR_PAX_RESTRICTED,
                           ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE}) {
    const TempFolder folder;
    write_tar(folder / "x.tar", members, format);
    const std::string bytes = read_file(folder / "x.tar");
    const TarListing listing = list_tar(folder / "x.tar");
    ASSERT_EQ(listing.files.size(), members.size());
    for (std::size_t i = 0; i < members.size(); ++i) {
      EXPECT_EQ(listing.files[i].path, members[i].first);
      EXPECT_EQ(bytes.substr(listing.files[i].offset, listing.files[i].length), members[i].second);
    }
    EXPECT_TRUE(listing.others.empty());
  }
}

TEST(TarMembers, RefusesCompressedCutAndForeignFiles) {
  const TempFolder folder;
  write_tar(folder / "z.tar.gz", {{"a.jpg", noise_jpeg(1)}}, ARCHIVE_FORMAT_TAR_USTAR,
            ARCHIVE_FILTER_GZIP);
  const std::string message = message_of<SpecError>([&] { list_tar(folder / "z.tar.gz"); });
  EXPECT_NE(message.find("compressed by gzip"), std::string::npos) << message;

  write_tar(folder / "x.tar", {{"a.jpg", noise_jpeg(1, 90, 90)}, {"b.jpg", noise_jpeg(2)}});
  const std::string whole = read_file(folder / "x.tar");
  test::write_text(folder / "cut.tar", whole.substr(0, 700));
  EXPECT_THROW(list_tar(folder / "cut.tar"), Error);
  test::write_text(folder / "text.tar", std::string(2000, 't'));
  EXPECT_THROW(list_tar(folder / "text.tar"), Error);
  EXPECT_THROW(list_tar(folder / "none.tar"), Error);
}

/// Two shards for training and one for validation, named as the common ImageNet ones.
struct ShardSet {
  TempFolder folder;
  std::vector<std::string> images;

  ShardSet() {
    for (std::uint64_t i = 0; i < 5; ++i) images.push_back(noise_jpeg(i));
    write_tar(folder / "in1k-train-0000.tar", {{"n01_1.cls", "2"},
                                               {"n01_1.jpg", images[0]},
                                               {"n01_1.json", R"({"label": 9})"},
                                               {"n02_7.jpg", images[1]},
                                               {"n02_7.cls", "0\n"}});
    write_tar(folder / "in1k-train-0001.tar", {{"x/n03.JPEG", images[2]}, {"x/n03.cls", "1"}});
    write_tar(folder / "in1k-validation-00.tar",
              {{"v.json", R"({"filename": "v", "label": 2})"}, {"v.png", test::small_png()}});
  }
  StoredParts open() const { return open_tar_shards(folder.path(), {}); }
};

TEST(ShardScan, JoinsMembersByKeyAndReadsThemInPlace) {
  const ShardSet set;
  const StoredParts parts = set.open();
  const StoredDataset& train = *parts.train.samples;
  ASSERT_EQ(train.size(), 3);
  EXPECT_EQ(train.facts().classes, 3);
  const std::vector<std::int64_t> labels{train.label(0), train.label(1), train.label(2)};
  EXPECT_EQ(labels, (std::vector<std::int64_t>{2, 0, 1})) << ".cls goes before .json";
  std::string buffer;
  for (std::size_t i = 0; i < 3; ++i) {
    const StoredImage stored = *train.stored(static_cast<std::int64_t>(i), buffer);
    EXPECT_EQ(std::string(stored.bytes.begin(), stored.bytes.end()), set.images[i]);
  }
  EXPECT_TRUE(buffer.empty()) << "nothing is copied";
  EXPECT_EQ(test::load_image(*parts.test.samples, 0).width, 3);
  EXPECT_EQ(parts.test.samples->label(0), 2);
  EXPECT_EQ(train.fingerprint(), set.open().train.samples->fingerprint());
}

TEST(ShardScan, TakesTheFolderOrTheNameOfTheTarForTheClass) {
  const TempFolder root;
  // As the original archive of ImageNet's training part.
  write_tar(root / "train/n02.tar", {{"n02_1.JPEG", noise_jpeg(1)}, {"n02_2.JPEG", noise_jpeg(2)}});
  write_tar(root / "train/n01.tar", {{"n01_1.JPEG", noise_jpeg(3)}});
  write_tar(root / "val/all.tar",
            {{"val/n02/a.JPEG", noise_jpeg(4)}, {"n01/b.JPEG", noise_jpeg(5)}});
  const StoredParts parts = open_tar_shards(root.path(), {});
  EXPECT_EQ(parts.train.samples->index().head().classes, (std::vector<std::string>{"n01", "n02"}));
  EXPECT_EQ(parts.train.samples->label(0), 0);
  EXPECT_EQ(parts.train.samples->label(1), 1);
  EXPECT_EQ(parts.test.samples->label(0), 1);
  EXPECT_EQ(parts.test.samples->label(1), 0);
  EXPECT_TRUE(parts.train.findings.empty()) << "names of classes are no numbered shards";
}

TEST(ShardScan, CountsAndNamesWhatIsOdd) {
  const TempFolder root;
  write_tar(root / "train-1.tar", {{"a.jpg", noise_jpeg(1)},
                                   {"a.cls", "0"},
                                   {"b.cls", "1"},
                                   {"c.jpg", noise_jpeg(2)},
                                   {"c.png", test::small_png()},
                                   {"c.cls", "3"},
                                   {"a.jpg", noise_jpeg(3)},
                                   {"a.cls", "0"}});
  write_tar(root / "train-3.tar", {{"d.jpg", noise_jpeg(4)}, {"d.cls", "1"}});
  write_tar(root / "val-0.tar", {{"v.jpg", noise_jpeg(5)}, {"v.cls", "0"}});
  const Findings findings = open_tar_shards(root.path(), {}).train.findings;
  const auto has = [&](std::string_view kind, const char* name) {
    EXPECT_EQ(findings.count(kind), 1U) << kind;
    EXPECT_NE(findings.line(kind).find(name), std::string::npos) << findings.line(kind);
  };
  has("sample without an image, left out", "train-1/b");
  has("sample with several images, the first kept", "train-1/c");
  has(kSameName, "train-1/a");
  has("number missing among the shards", "train-2");
  has(kEmptyClass, "2");
}

TEST(ShardScan, SaysWhatIsWrong) {
  const auto refusal = [](const std::vector<std::pair<std::string, std::string>>& train,
                          const std::vector<std::pair<std::string, std::string>>& val) {
    const TempFolder root;
    write_tar(root / "train.tar", train);
    write_tar(root / "val.tar", val);
    return message_of<Error>([&] { open_tar_shards(root.path(), {}); });
  };
  const std::string image = noise_jpeg(1);
  EXPECT_NE(refusal({{"a.jpg", image}, {"a.cls", "cat"}}, {}).find("\"cat\" is no label"),
            std::string::npos);
  EXPECT_NE(
      refusal({{"a.jpg", image}, {"a.cls", "1"}, {"b.jpg", image}}, {}).find("b.jpg has no label"),
      std::string::npos);
  EXPECT_NE(refusal({{"a.jpg", image}, {"a.cls", "1"}}, {{"v.jpg", image}, {"v.cls", "2"}})
                .find("label 2; accepted: 0 to 1"),
            std::string::npos);
  EXPECT_NE(refusal({{"k/a.jpg", image}}, {{"l/v.jpg", image}}).find("class \"l\" is none"),
            std::string::npos);
  EXPECT_NE(refusal({{"n01.tar", "x"}}, {}).find("n01.tar is a tar file itself"),
            std::string::npos);
  EXPECT_NE(refusal({{"a.cls", "1"}}, {}).find("no .jpg, .jpeg or .png member"), std::string::npos);
  EXPECT_NE(refusal({{"a.jpg", image}, {"a.json", "{"}}, {}).find("no valid JSON"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
