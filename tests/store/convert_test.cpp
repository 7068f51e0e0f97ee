#include "datasets/store/convert.h"

#include <thread>

#include <gtest/gtest.h>

#include "datasets/decode.h"
#include "datasets/resize.h"
#include "datasets/store/verify.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/lease.h"
#include "tests/core/expect_error.h"
#include "tests/store/image_sets.h"
#include "tests/support/small_disk.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::load_image;
using test::message_of;
using test::noise_jpeg;
using test::TempFolder;
using test::write_text;

/// An image folder and where it is packed to.
struct Work {
  TempFolder source, dest;

  explicit Work(int classes = 3, int of_each = 4) {
    test::write_image_folder(source.path(), classes, of_each);
  }
  StoredPart part() const { return open_image_folder(source.path(), {}).train; }
  PackFiles files(const std::string& folder = "a") const { return {dest / folder, "train"}; }
  ConvertReport convert(const ConvertOptions& options = {}, const std::string& folder = "a",
                        const PassHooks& hooks = {}) const {
    return convert_part(part(), files(folder), options, hooks);
  }
  /// Everything a finished conversion leaves, as one text.
  std::string bytes(const std::string& folder = "a") const {
    const PackFiles made = files(folder);
    EXPECT_FALSE(fs::exists(made.journal()));
    return read_file(made.samples()) + read_file(made.index());
  }
};

Image decoded(const std::string& file) {
  Image image;
  decode_image({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()}, "x", image);
  return image;
}

TEST(Convert, KeepsBytesLabelsNamesAndOrder) {
  const Work work;
  write_text(work.source / "train/class1/p.png", test::small_png());
  const ConvertReport report = work.convert();
  EXPECT_TRUE(report.finished);
  EXPECT_EQ(report.samples, 13);
  const auto pack = open_pack_part(work.files());
  const StoredPart source = work.part();
  ASSERT_EQ(pack->size(), source.samples->size());
  std::string unused, buffer;
  for (std::int64_t i = 0; i < pack->size(); ++i) {
    EXPECT_EQ(pack->label(i), source.samples->label(i));
    EXPECT_EQ(pack->index().name(i), source.samples->index().name(i));
    EXPECT_EQ(load_image(*pack, i), load_image(*source.samples, i));
    const StoredImage packed = *pack->stored(i, unused),
                      original = *source.samples->stored(i, buffer);
    EXPECT_TRUE(std::ranges::equal(packed.bytes, original.bytes));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(packed.bytes.data()) % kSampleAlignment, 0U);
  }
  EXPECT_TRUE(unused.empty()) << "samples are read where they lie";
  EXPECT_EQ(pack->index().head().classes, source.samples->index().head().classes);
}

TEST(Convert, LeavesTheSameBytesForAnyNumberOfThreads) {
  const Work work;
  work.convert({.threads = 1}, "a");
  work.convert({.threads = 5}, "b");
  EXPECT_EQ(work.bytes("a"), work.bytes("b"));
}

// The shorter side becomes the wanted one by Pillow's bicubic; smaller images keep their bytes.
TEST(Convert, ShrinksToTheShorterSide) {
  const Work work(1, 1);
  const std::string wide = noise_jpeg(50, 90, 60), tall = noise_jpeg(51, 31, 62);
  write_text(work.source / "train/class0/1.jpg", wide);
  write_text(work.source / "train/class0/2.jpg", tall);
  write_text(work.source / "train/class0/3.png", test::small_png());
  work.convert({.form = {.kind = PackForm::Kind::Raw, .side = 30}}, "raw");
  const auto raw = open_pack_part(work.files("raw"));
  ASSERT_EQ(raw->size(), 4);
  EXPECT_EQ(load_image(*raw, 0), load_image(*work.part().samples, 0));
  EXPECT_EQ(load_image(*raw, 1), resize(decoded(wide), 45, 30, Filter::Bicubic));
  EXPECT_EQ(load_image(*raw, 2), resize(decoded(tall), 30, 60, Filter::Bicubic));
  EXPECT_EQ(load_image(*raw, 3).width, 3);

  work.convert({.form = {.kind = PackForm::Kind::Jpeg, .side = 30, .quality = 80}}, "jpeg");
  const auto jpeg = open_pack_part(work.files("jpeg"));
  std::string buffer;
  const StoredImage first = *jpeg->stored(0, buffer);
  EXPECT_EQ(std::string(first.bytes.begin(), first.bytes.end()),
            read_file(work.source / "train/class0/0.jpg"));
  EXPECT_EQ(load_image(*jpeg, 1), decoded(encode_jpeg(load_image(*raw, 1), 80)));
  const StoredImage png = *jpeg->stored(3, buffer);
  EXPECT_TRUE(is_jpeg(png.bytes)) << "all of a JPEG pack are JPEGs";
}

TEST(Convert, KnowsRawSquaresOfOneSize) {
  const Work work(1, 0);
  for (int i = 0; i < 3; ++i) {
    write_text(work.source / cat("train/class0/", i, ".jpg"), noise_jpeg(1, 40, 40));
  }
  work.convert({.form = {.kind = PackForm::Kind::Raw, .side = 16}});
  EXPECT_EQ(open_pack_part(work.files())->facts().image_size, 16);
  work.convert({}, "b");
  EXPECT_EQ(open_pack_part(work.files("b"))->facts().image_size, 0);
}

TEST(Convert, TakesPacksAndShardsForASource) {
  const Work work;
  work.convert({}, "a");
  const StoredPart packed{.samples = open_pack_part(work.files("a")), .findings = {}};
  const PackFiles again(work.dest / "b", "train");
  convert_part(packed, again, {});
  EXPECT_EQ(open_pack_part(again)->fingerprint(), packed.samples->fingerprint());
}

TEST(Convert, GoesOnAfterAStopToTheSameBytes) {
  const Work work;
  work.convert({.threads = 2}, "whole");
  int calls = 0;
  for (bool finished = false; !finished; ++calls) {
    std::int64_t asked = 0;
    finished =
        work.convert({.threads = 2}, "a", {.progress = {}, .stop = [&] { return ++asked == 3; }})
            .finished;
    ASSERT_LT(calls, 10);
    if (!finished) {
      EXPECT_FALSE(fs::exists(work.files().index()));
    }
  }
  EXPECT_EQ(calls, 4) << "12 samples, three a call";
  EXPECT_EQ(work.bytes("a"), work.bytes("whole"));
}

// kill -9 leaves any prefix of the journal, and any bytes in the samples behind what it names.
TEST(Convert, GoesOnFromAnyPrefixOfItsJournal) {
  const Work work(1, 6);
  work.convert({}, "whole");
  const std::string whole = work.bytes("whole");
  std::int64_t asked = 0;
  for (int stops = 0; stops < 2; ++stops) {
    asked = 0;
    work.convert({}, "a", {.progress = {}, .stop = [&] { return ++asked == 2; }});
  }
  const std::string journal = read_file(work.files().journal());
  const std::string samples = read_file(work.files().samples());
  ASSERT_GT(std::ranges::count(journal, '\n'), 2);
  for (std::size_t length = 0; length <= journal.size(); length += 7) {
    const PackFiles files = work.files("b");
    fs::remove_all(files.folder());
    write_text(files.journal(), journal.substr(0, length));
    write_text(files.samples(), samples + "bytes nobody has named");
    ASSERT_TRUE(work.convert({.threads = 2}, "b").finished);
    ASSERT_EQ(work.bytes("b"), whole) << length;
  }
}

TEST(Convert, OneProcessWritesAPartAtATime) {
  const Work work;
  const auto refused = [&](const auto& action) {
    const std::string what = message_of<Error>(action);
    EXPECT_NE(what.find("train.samples is being written by process"), std::string::npos) << what;
  };
  {
    const Lease other = Lease::take(work.files().lease(), "it");
    refused([&] { work.convert(); });
    EXPECT_FALSE(fs::exists(work.files().samples()));
  }
  EXPECT_TRUE(work.convert().finished);
  EXPECT_FALSE(fs::exists(work.files().lease()));
  const Lease other = Lease::take(work.files().lease(), "it");
  refused([&] { repair_part(*work.part().samples, work.files(), 1); });
  EXPECT_TRUE(work.convert().finished) << "there is nothing left to write";
}

TEST(Convert, IsDoneOnce) {
  const Work work;
  work.convert();
  const auto when = fs::last_write_time(work.files().samples());
  write_text(work.files().journal(), "left by a call that ended just before it removed this");
  EXPECT_EQ(work.convert().samples, 12);
  EXPECT_EQ(fs::last_write_time(work.files().samples()), when);
  EXPECT_FALSE(fs::exists(work.files().journal()));

  const auto other = [&] { work.convert({.form = {.kind = PackForm::Kind::Raw}}); };
  EXPECT_NE(message_of<SpecError>(other).find("another source or in another form"),
            std::string::npos);
}

TEST(Convert, RefusesToGoOnWithAnother) {
  const Work work;
  work.convert({}, "a", {.progress = {}, .stop = [] { return true; }});
  const std::string message =
      message_of<SpecError>([&] { work.convert({.form = {.kind = PackForm::Kind::Raw}}); });
  EXPECT_NE(message.find("under way"), std::string::npos) << message;
  EXPECT_TRUE(work.convert().finished);
}

TEST(Convert, NamesAllThatIsBadAndLeavesItOutWhenAsked) {
  const Work work;
  std::string cut = read_file(work.source / "train/class0/1.jpg");
  cut.resize(cut.size() / 2);
  write_text(work.source / "train/class0/1.jpg", cut);
  write_text(work.source / "train/class2/text.jpg", "no image");
  write_text(work.source / "train/class2/empty.png", "");
  write_text(work.source / "train/class1/really_png.jpg", test::small_png());
  const std::string message = message_of<SpecError>([&] { work.convert({.threads = 2}); });
  for (const char* part : {"cannot be decoded: 3", "class0/1.jpg", "class2/text.jpg",
                           "class2/empty.png", "--on-bad skip"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
  }
  EXPECT_EQ(message.find("really_png"), std::string::npos);
  const ConvertReport report = work.convert({.skip_bad = true});
  EXPECT_EQ(report.samples, 12);
  EXPECT_EQ(report.source_samples, 15);
  EXPECT_EQ(report.findings.count(kUndecodable), 3U);
  EXPECT_EQ(report.findings.line(kOtherExtension),
            cat(kOtherExtension, ": 1: class1/really_png.jpg"));
  EXPECT_EQ(work.convert({.skip_bad = true}).findings.json(), report.findings.json())
      << "an ended conversion remembers";
}

TEST(Convert, FindsDuplicates) {
  const Work work;
  write_text(work.source / "train/class0/copy.jpg", read_file(work.source / "train/class0/0.jpg"));
  write_text(work.source / "train/class1/copy.jpg", read_file(work.source / "train/class0/0.jpg"));
  using Duplicates = ConvertOptions::Duplicates;
  const ConvertReport kept = work.convert({}, "keep");
  EXPECT_EQ(kept.samples, 14);
  EXPECT_EQ(kept.findings.count("same content twice"), 1U);
  EXPECT_EQ(kept.findings.line("same content twice, in two classes"),
            "same content twice, in two classes: 1: class1/copy.jpg");
  EXPECT_EQ(work.convert({.duplicates = Duplicates::Skip}, "skip").samples, 12);
  EXPECT_NE(message_of<SpecError>([&] {
              work.convert({.duplicates = Duplicates::Error}, "error");
            }).find("class0/copy.jpg"),
            std::string::npos);

  write_text(work.source / "val/class0/v.jpg", read_file(work.source / "train/class2/3.jpg"));
  const PackFiles val(work.dest / "keep", "val");
  convert_part(open_image_folder(work.source.path(), {}).test, val, {});
  const Findings shared =
      shared_samples(open_pack_part(work.files("keep"))->index(), open_pack_part(val)->index());
  EXPECT_EQ(shared.kinds().at("same content in training and test"),
            (std::vector<std::string>{"class0/v.jpg = class2/3.jpg"}));
}

TEST(Convert, TellsHowFarItIs) {
  const Work work;
  std::vector<PassProgress> told;
  work.convert({}, "a",
               {.progress = [&](const PassProgress& p) { told.push_back(p); }, .stop = {}});
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().part, "train");
  EXPECT_EQ(told.back().done, 12);
  EXPECT_EQ(told.back().total, 12);
  EXPECT_EQ(told.back().seconds_left, 0);
}

TEST(Convert, GoesOnAfterAFullDisk) {
  const Work work(2, 60);
  fs::create_directories(work.dest / "disk");
  std::string why_not;
  std::jthread([&] {  // the small disk is seen by this thread and those it starts
    const test::SmallDisk disk(work.dest / "disk", "96k");
    why_not = disk.reason();
    if (!disk.mounted()) return;
    const PackFiles files(disk.path(), "train");
    const ConvertOptions raw{.form = {.kind = PackForm::Kind::Raw}, .threads = 2};
    const std::string message =
        message_of<TransientError>([&] { convert_part(work.part(), files, raw); });
    EXPECT_NE(message.find("train.samples"), std::string::npos) << message;
    EXPECT_NE(message.find("No space left"), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(files.index()));
    EXPECT_NE(message_of<TransientError>([&] {
                convert_part(work.part(), PackFiles(disk.path() / "b", "train"), {});
              }).find("are needed"),
              std::string::npos)
        << "verbatim copies are known not to fit before they start";
    // More room, and the same call.
    fs::create_directories(work.dest / "a");
    for (const auto& entry : fs::directory_iterator(disk.path())) {
      if (entry.is_regular_file()) fs::copy(entry.path(), work.dest / "a");
    }
    EXPECT_TRUE(convert_part(work.part(), work.files("a"), raw).finished);
    EXPECT_TRUE(convert_part(work.part(), work.files("whole"), raw).finished);
    EXPECT_EQ(work.bytes("a"), work.bytes("whole"));
  })
      .join();
  if (!why_not.empty()) GTEST_SKIP() << why_not;
}

}  // namespace
}  // namespace ablate
