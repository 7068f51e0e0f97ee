#include "results/network_lock.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#include <sqlite3.h>
#include <unistd.h>

#include "results/sqlite.h"
#include "runner/core/log.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPause{50};
constexpr int kMostRemovals = 10;  // then somebody else is at work, who is not killed

/// Byte 18 of the file tells (format of SQLite's database files, 1.3).
bool has_write_ahead_log(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string head(19, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  return in.gcount() == 19 && head[18] == 2;
}

}  // namespace

std::string NetworkLock::layer(const fs::path& file, bool writes) {
  if (writes) return "unix-dotfile";
  if (has_write_ahead_log(file)) return "";
  const fs::path folder = file.has_parent_path() ? file.parent_path() : ".";
  return ::access(folder.c_str(), W_OK) == 0 ? "unix-dotfile" : "unix-none";
}

fs::path NetworkLock::folder(const fs::path& file) { return file.string() + ".lock"; }

NetworkLock::NetworkLock(SQLite::Database& database, const fs::path& file,
                         std::chrono::milliseconds patience)
    : folder_(folder(fs::absolute(file))), patience_(static_cast<int>(patience / kPause)) {
  sqlite3_busy_handler(database.getHandle(), on_busy, this);
}

int NetworkLock::on_busy(void* self, int tries) {
  const auto& lock = *static_cast<const NetworkLock*>(self);
  if (tries >= lock.patience_ + kMostRemovals) return 0;
  std::this_thread::sleep_for(kPause);
  if (tries < lock.patience_) return 1;
  std::error_code gone;
  if (fs::remove(lock.folder_, gone)) {
    log_warning(cat(lock.folder_.string(), ": a reader did not give this lock back; removed"));
  }
  return 1;
}

void use_rollback_journal(SQLite::Database& database) {
  database.exec("PRAGMA locking_mode = EXCLUSIVE");
  const auto got = query_text(database, "PRAGMA journal_mode = delete");
  if (got != "delete") {
    throw SQLite::Exception(cat("journal mode is ", got.value_or("unknown"), ", wanted delete"),
                            SQLITE_IOERR);
  }
  // Takes effect with the next look at the file.
  database.exec("PRAGMA locking_mode = NORMAL; SELECT count(*) FROM sqlite_schema");
}

}  // namespace ablate
