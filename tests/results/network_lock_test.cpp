#include "results/network_lock.h"

#include <csignal>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "results/store.h"
#include "runner/core/error.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

// A database on a network file system, as far as its own host can tell.

namespace ablate {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test::make_run;
using test::TempFolder;
constexpr auto kReadWrite = ResultStore::Mode::ReadWrite;
constexpr auto kReadOnly = ResultStore::Mode::ReadOnly;

constexpr StorePlace kNetwork{.kind = FileSystemKind::Nfs, .lock_patience = 200ms};

std::int64_t runs_in(ResultStore& store) {
  return *query_integer(store.database(), "SELECT count(*) FROM run");
}

/// Whether the system knows a lock of any process on a file.
bool is_locked(const fs::path& file) {
  struct stat facts {};
  EXPECT_EQ(::stat(file.c_str(), &facts), 0);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    if (line.find(cat(":", facts.st_ino, " ")) != std::string::npos) return true;
  }
  return false;
}

TEST(NetworkLock, NothingIsLockedAndReadersSeeWhatIsWhole) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore writer(file, kReadWrite, kNetwork);
  writer.register_runs(std::vector{make_run("a", "a", 0)});
  EXPECT_FALSE(fs::exists(NetworkLock::folder(file)));
  ResultStore reader(file, kReadOnly, kNetwork);
  {
    SQLite::Transaction transaction(writer.database(), SQLite::TransactionBehavior::IMMEDIATE);
    writer.database().exec("UPDATE run SET seed = 7");
    EXPECT_TRUE(fs::is_directory(NetworkLock::folder(file)));
    EXPECT_FALSE(is_locked(file));
    std::int64_t seen = 0;
    std::jthread reading([&] {  // waits for the end of the transaction
      ResultStore own(file, kReadOnly, {.kind = FileSystemKind::Nfs});
      seen = *query_integer(own.database(), "SELECT seed FROM run");
    });
    std::this_thread::sleep_for(100ms);
    transaction.commit();
    reading.join();
    EXPECT_EQ(seen, 7);
  }
  EXPECT_EQ(runs_in(reader), 1);
  EXPECT_FALSE(fs::exists(NetworkLock::folder(file)));
  // The usual layer would have locked it: so the test can tell.
  SQLite::Database usual(file.string(), SQLite::OPEN_READWRITE);
  usual.exec("BEGIN IMMEDIATE");
  EXPECT_TRUE(is_locked(file));
}

TEST(NetworkLock, ThereIsOneWriter) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore writer(file, kReadWrite, kNetwork);
  try {
    ResultStore second(file, kReadWrite, kNetwork);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(cat("process ", ::getpid())), std::string::npos);
  }
}

TEST(NetworkLock, AKilledReaderHoldsNobodyUpForLong) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore writer(file, kReadWrite, kNetwork);
  const pid_t reader = ::fork();
  if (reader == 0) {
    ResultStore own(file, kReadOnly, kNetwork);
    own.database().exec("BEGIN; SELECT count(*) FROM run");
    ::_exit(fs::exists(NetworkLock::folder(file)) ? 0 : 1);  // without giving it back
  }
  int status = 1;
  ::waitpid(reader, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(fs::exists(NetworkLock::folder(file)));
  writer.register_runs(std::vector{make_run("a", "a", 0)});
  EXPECT_FALSE(fs::exists(NetworkLock::folder(file)));
  EXPECT_EQ(runs_in(writer), 1);
}

TEST(NetworkLock, WhatAKilledWriterBeganIsUndoneByTheNext) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore(file, kReadWrite, kNetwork)
      .register_runs(std::vector{make_run("a", "a", 0), make_run("b", "b", 0)});
  const pid_t writer = ::fork();
  if (writer == 0) {
    auto* own = new ResultStore(file, kReadWrite, kNetwork);
    own->database().exec("PRAGMA cache_size = 0; BEGIN IMMEDIATE; UPDATE run SET seed = 9");
    ::_exit(fs::exists(file.string() + "-journal") ? 0 : 1);
  }
  int status = 1;
  ::waitpid(writer, &status, 0);
  ASSERT_EQ(status, 0);
  ResultStore next(file, kReadWrite, kNetwork);
  EXPECT_EQ(query_integer(next.database(), "SELECT sum(seed) FROM run"), 0);
  EXPECT_NO_THROW(next.check(true));
}

TEST(NetworkLock, AFileFromALocalDiskGoesOnWithAJournalAndBack) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore(file).register_runs(std::vector{make_run("a", "a", 0)});
  {
    ResultStore reader(file, kReadOnly, kNetwork);
    EXPECT_EQ(runs_in(reader), 1) << "as it came";
  }
  {
    ResultStore writer(file, kReadWrite, kNetwork);
    EXPECT_EQ(query_text(writer.database(), "PRAGMA journal_mode"), "delete");
    EXPECT_FALSE(fs::exists(NetworkLock::folder(file)));
    writer.register_runs(std::vector{make_run("b", "b", 0)});
  }
  ResultStore local(file);
  EXPECT_EQ(query_text(local.database(), "PRAGMA journal_mode"), "wal");
  EXPECT_EQ(runs_in(local), 2);
}

TEST(NetworkLock, AReaderThatHasToGiveUpSaysWhy) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  ResultStore writer(file, kReadWrite, kNetwork);
  const SQLite::Transaction transaction(writer.database(), SQLite::TransactionBehavior::IMMEDIATE);
  try {
    ResultStore reader(file, kReadOnly, kNetwork);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(NetworkLock::folder(file).string()), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ablate
