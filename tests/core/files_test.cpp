#include "runner/core/files.h"

#include <cerrno>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::message_of;

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(WriteFileAtomic, WritesAndReplaces) {
  const test::TempFolder folder;
  const std::string bytes("a\0b\n", 4);
  write_file_atomic(folder / "f", "old content that is longer");
  write_file_atomic(folder / "f", bytes);
  EXPECT_EQ(read_file(folder / "f"), bytes);
  write_file_atomic(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
  EXPECT_EQ(entries(folder.path()), 2U);
}

TEST(WriteFileAtomic, HonoursTheUmask) {
  const test::TempFolder folder;
  const mode_t before = ::umask(027);
  write_file_atomic(folder / "f", "x");
  ::umask(before);
  EXPECT_EQ(static_cast<unsigned>(fs::status(folder / "f").permissions()), 0640U);
}

TEST(WriteFileAtomic, MissingFolderIsNamed) {
  const test::TempFolder folder;
  const std::string message =
      message_of<Error>([&] { write_file_atomic(folder / "no" / "f", "x"); });
  EXPECT_EQ(message,
            (folder / "no" / "f").string() + ": cannot be written: No such file or directory");
}

TEST(WriteFileAtomic, UnwritableFolderIsNamed) {
  const test::TempFolder folder;
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  const bool root = ::geteuid() == 0;
  constexpr uid_t kNobody = 65534;
  if (root) {
    ASSERT_EQ(::seteuid(kNobody), 0);  // permissions do not bind root
  }
  const std::string message = message_of<Error>([&] { write_file_atomic(folder / "f", "x"); });
  if (root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  EXPECT_EQ(message, (folder / "f").string() + ": cannot be written: Permission denied");
  EXPECT_EQ(entries(folder.path()), 0U);
}

TEST(WriteFileAtomic, AWriteThatFailsHalfwayLeavesTheOldFileAndNothingElse) {
  const test::TempFolder folder;
  write_file_atomic(folder / "f", "old");
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 1000;
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      message_of<Error>([&] { write_file_atomic(folder / "f", std::string(5000, 'x')); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(message, (folder / "f").string() + ": cannot be written: File too large");
  EXPECT_EQ(read_file(folder / "f"), "old");
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(WriteFileAtomic, AFolderInTheWayLeavesNothingBehind) {
  const test::TempFolder folder;
  fs::create_directory(folder / "f");
  EXPECT_THROW(write_file_atomic(folder / "f", "x"), Error);
  EXPECT_EQ(entries(folder.path()), 1U);
}

// Another attempt may find space; it will find no file that does not exist.
TEST(FileError, TellsFaultsOfTheMachineFromOthers) {
  for (const int fault : {ENOSPC, EDQUOT, EFBIG, EIO, EROFS}) {
    EXPECT_THROW(throw_file_error("f", "cannot be written", fault), TransientError) << fault;
  }
  for (const int other : {ENOENT, EACCES, ENOTDIR, EEXIST}) {
    try {
      throw_file_error("f", "cannot be written", other);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::Failed) << error.what();
    }
  }
}

TEST(ReadFile, NamesWhatCannotBeRead) {
  const test::TempFolder folder;
  EXPECT_EQ(message_of<Error>([&] { read_file(folder / "f"); }),
            (folder / "f").string() + ": cannot be read: No such file or directory");
  EXPECT_EQ(message_of<Error>([&] { read_file(folder.path()); }),
            folder.path().string() + ": cannot be read: Is a directory");
}

TEST(MakeDirectories, MakesAllAndIsIdempotent) {
  const test::TempFolder folder;
  make_directories(folder / "a" / "b" / "c");
  make_directories(folder / "a" / "b" / "c");
  make_directories(folder / "a" / "b" / "c" / "");
  EXPECT_TRUE(fs::is_directory(folder / "a" / "b" / "c"));
  write_file_atomic(folder / "file", "x");
  EXPECT_EQ(message_of<Error>([&] { make_directories(folder / "file" / "d"); }),
            (folder / "file").string() + ": cannot be made: File exists");
}

TEST(FileSystem, IsFoundForPathsThatDoNotExistYet) {
  const test::TempFolder folder;
  const fs::path later = folder / "not" / "there" / "yet";
  EXPECT_EQ(file_system_kind(later), file_system_kind(folder.path()));
  EXPECT_GT(free_bytes(later), 0U);
  EXPECT_EQ(file_system_name(FileSystemKind::BeeGfs), "beegfs");
  EXPECT_EQ(file_system_name(FileSystemKind::Unknown), "unknown");
}

TEST(FileSystem, ProcIsNoKnownKind) {
  EXPECT_EQ(file_system_kind("/proc/self"), FileSystemKind::Unknown);
}

}  // namespace
}  // namespace ablate
