#include "datasets/store/verify.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/store/image_sets.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::TempFolder;
using test::write_text;

/// A packed set with its source.
struct Packed {
  TempFolder source, dest;
  PackFiles files{dest.path(), "train"};
  std::string whole;

  explicit Packed(PackForm form = {}) {
    test::write_image_folder(source.path(), 2, 3);
    convert_part(part(), files, {.form = form});
    whole = read_file(files.samples());
  }
  StoredPart part() const { return open_image_folder(source.path(), {}).train; }
  VerifyReport repair() const { return repair_part(*part().samples, files, 2); }
  /// Changes one byte of a sample.
  void damage(std::int64_t sample) const {
    std::string bytes = read_file(files.samples());
    const std::size_t at = SampleIndex(files.index()).entry(sample).offset + 7;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    write_text(files.samples(), bytes);
  }
};

TEST(VerifyPack, FindsEveryFlippedByteOfTheSamples) {
  const Packed pack;
  EXPECT_TRUE(verify_part(pack.files, 2).sound());
  const SampleIndex index(pack.files.index());
  for (std::int64_t i = 0; i < index.size(); ++i) {
    for (const std::uint64_t at :
         {std::uint64_t{0}, index.entry(i).length / 2, index.entry(i).length - 1}) {
      std::string bytes = pack.whole;
      char& byte = bytes[index.entry(i).offset + at];
      byte = static_cast<char>(byte ^ 0x40);
      write_text(pack.files.samples(), bytes);
      EXPECT_EQ(verify_part(pack.files, 2).damaged,
                (std::vector<std::string>{std::string(index.name(i))}));
    }
  }
}

TEST(VerifyPack, IsNotNeededToNoticeDamage) {
  const Packed pack;
  pack.damage(2);
  const auto opened = open_pack_part(pack.files);
  EXPECT_NO_THROW(test::load_image(*opened, 1));
  const std::string message = message_of<Error>([&] { test::load_image(*opened, 2); });
  for (const char* part : {"train.samples", "class0/2.jpg", "wrong checksum", "--repair"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(VerifyPack, RepairsFromTheSource) {
  for (const PackForm form : {PackForm{}, PackForm{.kind = PackForm::Kind::Jpeg, .side = 12},
                              PackForm{.kind = PackForm::Kind::Raw, .side = 12}}) {
    const Packed pack(form);
    pack.damage(0);
    pack.damage(4);
    const VerifyReport report = pack.repair();
    EXPECT_EQ(report.damaged, (std::vector<std::string>{"class0/0.jpg", "class1/1.jpg"}));
    EXPECT_EQ(read_file(pack.files.samples()), pack.whole);
    EXPECT_TRUE(pack.repair().sound());

    write_text(pack.files.samples(), pack.whole.substr(0, pack.whole.size() / 2));  // cut off
    EXPECT_THROW(open_pack_part(pack.files), Error);
    EXPECT_FALSE(verify_part(pack.files, 1).sound());
    pack.repair();
    EXPECT_EQ(read_file(pack.files.samples()), pack.whole);

    fs::remove(pack.files.samples());
    EXPECT_TRUE(pack.repair().header_damaged);
    EXPECT_EQ(read_file(pack.files.samples()), pack.whole);
  }
}

TEST(VerifyPack, RepairsWhatItCanAndNamesTheRest) {
  const Packed pack;
  pack.damage(0);
  pack.damage(3);
  write_text(pack.source / "train/class1/0.jpg", test::noise_jpeg(99));
  const std::string message = message_of<SpecError>([&] { pack.repair(); });
  EXPECT_NE(message.find("1 of 2 damaged samples"), std::string::npos) << message;
  EXPECT_NE(message.find("class1/0.jpg has other bytes"), std::string::npos) << message;
  EXPECT_EQ(verify_part(pack.files, 1).damaged, (std::vector<std::string>{"class1/0.jpg"}));
  fs::remove(pack.source / "train/class1/0.jpg");
  EXPECT_NE(message_of<SpecError>([&] { pack.repair(); }).find("is not in the source"),
            std::string::npos);
}

TEST(VerifyPack, KnowsWhichFilesGoTogether) {
  const Packed pack, other(PackForm{.kind = PackForm::Kind::Raw});
  fs::copy_file(other.files.index(), pack.files.index(), fs::copy_options::overwrite_existing);
  EXPECT_NE(message_of<Error>([&] { open_pack_part(pack.files); }).find("not of the conversion"),
            std::string::npos);
}

TEST(OpenPack, SaysWhatIsMissing) {
  const Packed pack;
  const auto refusal = [&] { return message_of<SpecError>([&] { open_pack(pack.dest.path()); }); };
  EXPECT_NE(refusal().find("expected val.index"), std::string::npos) << refusal();
  write_text(pack.dest / "val.journal", "");
  EXPECT_NE(refusal().find("the conversion has not ended"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace ablate
