#pragma once

#include <chrono>
#include <filesystem>

#include <SQLiteCpp/SQLiteCpp.h>

namespace ablate {

/// Where SQLite's locks do not hold between hosts, or hang: processes exclude each other by a
/// folder FILE.lock, which making is atomic everywhere.
class NetworkLock {
 public:
  /// The name of SQLite's own file layer that does so; "" (the usual layer) for a reader of a file
  /// whose write-ahead log needs shared memory, "unix-none" for one that may not make a folder.
  static std::string layer(const std::filesystem::path& file, bool writes);

  /// For the one writer of a file: it waits for readers, and removes the lock of one that has not
  /// given it back for `patience`, since it was killed.
  NetworkLock(SQLite::Database& database, const std::filesystem::path& file,
              std::chrono::milliseconds patience);
  NetworkLock(const NetworkLock&) = delete;
  NetworkLock& operator=(const NetworkLock&) = delete;

  static std::filesystem::path folder(const std::filesystem::path& file);

 private:
  static int on_busy(void* self, int tries);

  std::filesystem::path folder_;
  int patience_;  // in pauses
};

/// Leaves a write-ahead log behind without shared memory, and begins to use a rollback journal.
void use_rollback_journal(SQLite::Database& database);

}  // namespace ablate
