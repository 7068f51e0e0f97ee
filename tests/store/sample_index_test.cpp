#include "datasets/store/sample_index.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::message_of;

IndexBuilder three_samples() {
  IndexBuilder index;
  index.head = {.classes = {"ant", "bee"},
                .files = {"a.tar"},
                .key = "k",
                .labels_in_names = true,
                .facts = {{"side", 7}}};
  index.add({.offset = 64, .length = 5, .checksum = ~0ULL, .label = 1}, "bee/1.jpg");
  index.add({.offset = 128, .length = 6, .width = 2, .height = 1}, "");
  index.add({.length = std::uint64_t{1} << 40, .label = 1}, "ant/2.jpg");
  return index;
}

TEST(SampleIndex, GivesBackWhatWasAdded) {
  const test::TempFolder folder;
  const IndexBuilder built = three_samples();
  write_file_atomic(folder / "x.index", built.finish());
  for (const SampleIndex& index : {SampleIndex(folder / "x.index"), SampleIndex(built.finish())}) {
    ASSERT_EQ(index.size(), 3);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(index.entry(i), built.entries()[static_cast<std::size_t>(i)]);
    }
    EXPECT_EQ(index.name(0), "bee/1.jpg");
    EXPECT_EQ(index.name(1), "");
    EXPECT_EQ(index.name(2), "ant/2.jpg");
    EXPECT_EQ(index.head().classes, built.head.classes);
    EXPECT_EQ(index.head().files, built.head.files);
    EXPECT_EQ(index.head().key, "k");
    EXPECT_TRUE(index.head().labels_in_names);
    EXPECT_EQ(index.head().facts, built.head.facts);
  }
}

// The documented layout: a header of 64 bytes, entries of 64, names, head.
TEST(SampleIndex, LiesAsDocumented) {
  const std::string bytes = three_samples().finish();
  EXPECT_EQ(bytes.substr(0, 8), "ABLATEIX");
  EXPECT_EQ(bytes.substr(8, 4), std::string("\1\0\0\0", 4));
  EXPECT_EQ(bytes.substr(12, 4), std::string("\x40\0\0\0", 4));
  EXPECT_EQ(bytes.substr(16, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(64, 2), std::string("\x40\0", 2)) << "offset of the first sample";
  EXPECT_EQ(bytes.substr(64 + 3 * 64, 18), "bee/1.jpgant/2.jpg");
}

TEST(SampleIndex, RefusesEveryCutAndEveryFlippedByte) {
  const std::string bytes = three_samples().finish();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(SampleIndex(bytes.substr(0, length)), Error) << length;
  }
  const std::size_t checked = 48;  // behind it nothing is said yet, up to the header's end
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (at >= checked && at < 64) continue;
    std::string other = bytes;
    other[at] = static_cast<char>(other[at] ^ 0x10);
    EXPECT_THROW(SampleIndex{other}, Error) << at;
  }
  std::string newer = bytes;
  newer[8] = 2;
  EXPECT_NE(message_of<Error>([&] { SampleIndex{newer}; }).find("version 2; accepted: 1"),
            std::string::npos);
}

TEST(SampleIndex, RefusesEntriesThatPointOutside) {
  IndexBuilder label = three_samples(), file = three_samples();
  label.add({.label = 2}, "x");
  file.add({.file = 1}, "x");
  EXPECT_THROW(SampleIndex(label.finish()), Error);
  EXPECT_THROW(SampleIndex(file.finish()), Error);
}

TEST(SampleIndex, LeavesSamplesOut) {
  const SampleIndex index(three_samples().finish());
  const std::vector<std::int64_t> first{0};
  const SampleIndex rest(without(index, first).finish());
  ASSERT_EQ(rest.size(), 2);
  EXPECT_EQ(rest.name(1), "ant/2.jpg");
  EXPECT_EQ(rest.entry(0).offset, 128U);
  EXPECT_EQ(rest.head().classes, index.head().classes);
}

}  // namespace
}  // namespace ablate
