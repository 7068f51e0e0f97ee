#include "runner/train/checkpoint.h"

#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/support/run_records.h"
#include "tests/support/small_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/train/file_size_limit.h"

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

const CheckpointStore::FenceCheck kStillCurrent = [] {};

/// A checkpoint whose tensors tell its step.
Checkpoint checkpoint_at(std::int64_t step) {
  return {.step = step,
          .state = {{"spec", "abc"}, {"updates", step}},
          .tensors = {{"model.w", at::arange(500, at::kDouble) * static_cast<double>(step)},
                      {"exp_avg/w", at::full({7}, 0.5F)},
                      {"model.count", at::full({}, step, at::kLong)}}};
}

fs::path path_at(const fs::path& folder, std::int64_t step) {
  return folder / cat("step-", std::string(9 - std::to_string(step).size(), '0'), step);
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

/// All files below a folder with their content.
std::map<std::string, std::string> snapshot(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[entry.path()] = read_file(entry.path());
  }
  return files;
}

TEST(CheckpointStore, GivesBackWhatItGot) {
  const TempFolder folder;
  const CheckpointStore store(folder.path(), 2, kStillCurrent);
  EXPECT_EQ(store.newest_valid(), std::nullopt);
  const Checkpoint written = checkpoint_at(12);
  CheckpointStore writer(folder.path(), 2, kStillCurrent);
  const CheckpointNote note = writer.save(written, "structure", true);
  EXPECT_EQ(note.step, 12);
  EXPECT_EQ(note.path, path_at(folder.path(), 12));
  EXPECT_EQ(note.structure_hash, "structure");
  EXPECT_TRUE(note.deployable);
  ASSERT_EQ(store.newest_valid(), path_at(folder.path(), 12));
  const Checkpoint read = CheckpointStore::load(*store.newest_valid());
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.state.at("updates"), 12);
  const std::map<std::string, at::Tensor> tensors(read.tensors.begin(), read.tensors.end());
  expect_same_tensors({written.tensors.begin(), written.tensors.end()}, tensors);
}

TEST(CheckpointStore, KeepsTheNewestUpToTheOneItWrote) {
  for (const int keep : {1, 2, 3}) {
    const TempFolder folder;
    CheckpointStore store(folder.path(), keep, kStillCurrent);
    for (const std::int64_t step : {5, 10, 999, 1000}) store.save(checkpoint_at(step), "", true);
    std::set<std::string> expected;
    for (const std::int64_t step : std::vector<std::int64_t>{1000, 999, 10}) {
      if (static_cast<int>(expected.size()) < keep) {
        expected.insert(path_at(folder.path(), step).filename());
      }
    }
    EXPECT_EQ(names_in(folder.path()), expected) << keep;
    // This attempt began before 999, so what is there of later steps could not be used.
    store.save(checkpoint_at(20), "", true);
    EXPECT_EQ(store.newest_valid(), path_at(folder.path(), 20));
    EXPECT_FALSE(fs::exists(path_at(folder.path(), 1000)));
    EXPECT_FALSE(fs::exists(path_at(folder.path(), 999)));
  }
}

struct Damage {
  const char* name;
  void (*inflict)(const fs::path& checkpoint);
};

std::ostream& operator<<(std::ostream& out, const Damage& damage) { return out << damage.name; }

void flip_a_bit(const fs::path& file) {
  std::string bytes = read_file(file);
  bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] ^ 4);
  std::ofstream(file, std::ios::binary) << bytes;
}

const Damage kDamages[] = {
    {"FlippedBitInTensors", [](const fs::path& c) { flip_a_bit(c / "tensors.safetensors"); }},
    {"FlippedBitInState", [](const fs::path& c) { flip_a_bit(c / "state.json"); }},
    {"FlippedBitInManifest", [](const fs::path& c) { flip_a_bit(c / "manifest.json"); }},
    {"TruncatedTensors", [](const fs::path& c) { fs::resize_file(c / "tensors.safetensors", 99); }},
    {"EmptyTensors", [](const fs::path& c) { fs::resize_file(c / "tensors.safetensors", 0); }},
    {"TruncatedManifest", [](const fs::path& c) { fs::resize_file(c / "manifest.json", 20); }},
    {"EmptyManifest", [](const fs::path& c) { fs::resize_file(c / "manifest.json", 0); }},
    {"NoManifest", [](const fs::path& c) { fs::remove(c / "manifest.json"); }},
    {"NoTensors", [](const fs::path& c) { fs::remove(c / "tensors.safetensors"); }},
    {"NoState", [](const fs::path& c) { fs::remove(c / "state.json"); }},
    {"Emptied",
     [](const fs::path& c) {
       fs::remove_all(c);
       fs::create_directory(c);
     }},
    {"AFile",
     [](const fs::path& c) {
       fs::remove_all(c);
       std::ofstream(c) << "?";
     }},
    {"FoldersForFiles",
     [](const fs::path& c) {
       fs::remove(c / "state.json");
       fs::create_directory(c / "state.json");
     }},
};

class DamagedCheckpoint : public testing::TestWithParam<Damage> {};

TEST_P(DamagedCheckpoint, IsNamedAndPassedOver) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 3, kStillCurrent);
  for (const std::int64_t step : {1, 2, 3}) store.save(checkpoint_at(step), "", true);
  GetParam().inflict(path_at(folder.path(), 3));
  testing::internal::CaptureStderr();
  const auto found = store.newest_valid();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(found, path_at(folder.path(), 2));
  EXPECT_NE(said.find(cat("checkpoint ", path_at(folder.path(), 3).string(), " is skipped")),
            std::string::npos)
      << said;
  EXPECT_EQ(said.find(path_at(folder.path(), 2)), std::string::npos) << said;
  EXPECT_EQ(CheckpointStore::load(*found).step, 2);

  GetParam().inflict(path_at(folder.path(), 2));
  GetParam().inflict(path_at(folder.path(), 1));
  EXPECT_EQ(store.newest_valid(), std::nullopt);
  // It is no obstacle for the attempt that comes to the same step again.
  store.save(checkpoint_at(3), "", true);
  EXPECT_EQ(store.newest_valid(), path_at(folder.path(), 3));
}

INSTANTIATE_TEST_SUITE_P(Every, DamagedCheckpoint, testing::ValuesIn(kDamages),
                         [](const auto& damage) { return damage.param.name; });

TEST(CheckpointStore, LooksAtNothingThatKilledWritersLeft) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2, kStillCurrent);
  store.save(checkpoint_at(4), "", true);
  // Whole, as if killed right before the rename, and torn.
  fs::copy(path_at(folder.path(), 4), folder / ".new-step-000000009.0");
  fs::copy(path_at(folder.path(), 4), folder / ".old-step-000000003.0");
  fs::create_directory(folder / ".new-step-000000009.1");
  std::ofstream(folder / ".new-step-000000009.1/tensors.safetensors") << "torn";
  EXPECT_EQ(store.newest_valid(), path_at(folder.path(), 4));
  store.save(checkpoint_at(9), "", true);
  EXPECT_EQ(store.newest_valid(), path_at(folder.path(), 9));
  EXPECT_EQ(CheckpointStore::load(path_at(folder.path(), 9)).step, 9);
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"step-000000004", "step-000000009"}));
}

TEST(CheckpointStore, RenamesNothingOnceTheFenceIsLost) {
  const TempFolder folder;
  bool current = true;
  CheckpointStore store(folder.path(), 1, [&] {
    if (!current) throw TransientError("given up");
  });
  store.save(checkpoint_at(4), "", true);
  const auto before = snapshot(folder.path());
  current = false;
  for (const std::int64_t step : {4, 9}) {
    EXPECT_THROW(store.save(checkpoint_at(step), "", true), TransientError);
    EXPECT_EQ(snapshot(folder.path()), before) << step;
    EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"step-000000004"})) << step;
  }
}

TEST(CheckpointStore, SaysThatTheDiskIsFullAndKeepsWhatItHad) {
  const TempFolder folder;
  const SmallDisk disk(folder.path(), "64k");
  if (!disk.mounted()) GTEST_SKIP() << disk.reason();
  CheckpointStore store(folder.path() / "checkpoints", 1, kStillCurrent);
  store.save(checkpoint_at(4), "", true);
  // Room for the tensors' two pages, not for state and manifest.
  std::ofstream(folder / "filler") << std::string(fs::space(folder.path()).available - 8192, '.');
  const auto before = snapshot(folder.path());
  const std::string message =
      message_of<TransientError>([&] { store.save(checkpoint_at(9), "", true); });
  EXPECT_NE(message.find("No space left on device"), std::string::npos) << message;
  EXPECT_NE(message.find(folder.path().string()), std::string::npos) << message;
  EXPECT_EQ(snapshot(folder.path()), before);
  EXPECT_EQ(names_in(folder.path() / "checkpoints"), (std::set<std::string>{"step-000000004"}));
  fs::remove(folder / "filler");
  store.save(checkpoint_at(9), "", true);
  EXPECT_EQ(CheckpointStore::load(store.newest_valid().value()).step, 9);
}

// Needs no right to mount: the kernel refuses to make a file as long as the tensors.
TEST(CheckpointStore, AFileThatCannotGrowIsAClearErrorToo) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 1, kStillCurrent);
  store.save(checkpoint_at(4), "", true);
  const auto before = snapshot(folder.path());
  {
    const FileSizeLimit limit(2048);
    const std::string message = message_of<Error>([&] { store.save(checkpoint_at(9), "", true); });
    EXPECT_NE(message.find("tensors.safetensors"), std::string::npos) << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  }
  EXPECT_EQ(snapshot(folder.path()), before);
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"step-000000004"}));
  store.save(checkpoint_at(9), "", true);
  EXPECT_EQ(store.newest_valid(), path_at(folder.path(), 9));
}

TEST(CheckpointStore, RemovesEverythingOfAFinishedRun) {
  const TempFolder folder;
  CheckpointStore store(folder.path() / "checkpoints", 3, kStillCurrent);
  for (const std::int64_t step : {1, 2}) store.save(checkpoint_at(step), "", true);
  store.remove_all();
  EXPECT_FALSE(fs::exists(folder.path() / "checkpoints"));
  store.remove_all();  // nothing there: nothing said
}

TEST(WriteDirectoryAtomic, ReplacesWholeOrNotAtAll) {
  const TempFolder folder;
  const fs::path target = folder.path() / "final";
  const auto fill = [](const char* text) {
    return [text](const fs::path& directory) { write_file_atomic(directory / "a", text); };
  };
  write_directory_atomic(target, fill("first"), [] {});
  EXPECT_THROW(write_directory_atomic(
                   target,
                   [&](const fs::path& directory) {
                     write_file_atomic(directory / "a", "torn");
                     throw Error("in the middle");
                   },
                   [] {}),
               Error);
  EXPECT_EQ(read_file(target / "a"), "first");
  write_directory_atomic(target, fill("second"), [&] {
    EXPECT_EQ(read_file(target / "a"), "first") << "replaced before it may be";
  });
  EXPECT_EQ(read_file(target / "a"), "second");
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"final"}));
}

}  // namespace
}  // namespace ablate::test
