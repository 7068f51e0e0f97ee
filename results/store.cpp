#include "results/store.h"

#include <algorithm>
#include <fstream>

#include <sqlite3.h>

#include "results/file_system_probe.h"
#include "results/network_lock.h"
#include "results/schema.h"
#include "results/sqlite.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr int kBusyTimeoutMs = 10'000;

bool is_local_file_system(const fs::path& file, FileSystemKind kind) {
  if (kind == FileSystemKind::Local) return true;
  if (kind == FileSystemKind::Unknown)
    return has_reliable_locks(file.has_parent_path() ? file.parent_path() : ".");
  return false;
}

int busy_timeout(const StorePlace& place, bool local) {
  const int patience = static_cast<int>(place.lock_patience.count());
  return local ? kBusyTimeoutMs : std::min(kBusyTimeoutMs, patience);
}

// SQLite would take an empty file as a new database, and call any other one "not a database" only
// at the first query.
void check_file_header(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string magic(16, '\0');
  in.read(magic.data(), static_cast<std::streamsize>(magic.size()));
  if (in.gcount() > 0 && magic != std::string("SQLite format 3\0", 16))
    throw SQLite::Exception("its first bytes are not those of an SQLite file", SQLITE_NOTADB);
}

void set_pragmas(SQLite::Database& db, ResultStore::Mode mode, bool local) {
  db.exec("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -65536");
  if (mode == ResultStore::Mode::ReadOnly) {
    db.exec("PRAGMA query_only = ON");
    return;
  }
  // Takes effect in a new file: a page of 4096 bytes holds three packed chunks of single precision
  // badly and of double precision only one.
  db.exec("PRAGMA page_size = 8192");
  if (!local) {
    db.exec("PRAGMA synchronous = FULL");
    return;
  }
  if (const auto got = query_text(db, "PRAGMA journal_mode = wal"); got != "wal") {
    throw SQLite::Exception(cat("journal mode is ", got.value_or("unknown"), ", wanted wal"),
                            SQLITE_IOERR);
  }
  db.exec("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000");
}

std::string way_out(const fs::path& file, int code) {
  std::error_code ignored;
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return cat((code & 0xff) == SQLITE_NOTADB ? "this is no results database, or a damaged one."
                                                : "the database is damaged.",
                 " Nothing measured is lost: the spool files hold it. Move "
                 "the file away (mv ",
                 file.string(), " ", file.string(),
                 ".damaged), then rebuild it: `ablate ingest OUT`, and `ablate sweep FILE` for the "
                 "labels");
    case SQLITE_FULL:
      return "the disk is full: free some space and run the command again";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return cat("another process has kept it locked for too long: try again, or end it",
                 fs::exists(NetworkLock::folder(file), ignored)
                     ? cat(" (if there is none, remove the folder ",
                           NetworkLock::folder(file).string(), ")")
                     : "");
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return "the file or its folder is missing or not accessible: a writable folder is needed, "
             "or a snapshot for reading";
    case SQLITE_IOERR:
      return "the disk or file system failed: check space and quota, or put the database on a "
             "local disk with --db";
    default:
      return "unexpected failure of SQLite";
  }
}

}  // namespace

void throw_database_error(const fs::path& file, const SQLite::Exception& error) {
  throw Error(cat(file.string(), ": ", error.what(), " (SQLite code ", error.getErrorCode(),
                  "): ", way_out(file, error.getErrorCode())));
}

ResultStore::ResultStore(const fs::path& file, Mode mode)
    : ResultStore(file, mode, {.kind = file_system_kind(file)}) {}

ResultStore::ResultStore(const fs::path& file, Mode mode, const StorePlace& place) : file_(file) {
  const bool writes = mode == Mode::ReadWrite;
  if (writes && file.has_parent_path()) make_directories(file.parent_path());
  std::error_code ignored;
  if (!writes && !fs::exists(file, ignored)) {
    throw Error(cat(file.string(),
                    ": no such database; `ablate sweep` or `ablate ingest` make one, "
                    "--db names another"));
  }
  const bool local = is_local_file_system(file, place.kind);
  if (writes && !local) {
    lease_.emplace(Lease::take(file.string() + ".lease", "the results database"));
    log_warning(cat(file.string(), ": lies on a ", file_system_name(place.kind),
                    " file system, whose locks and memory maps SQLite cannot trust between hosts: "
                    "one process at a time; better use --db on a local disk and snapshots"));
  }
  with_database_errors(file_, [&] {
    check_file_header(file);
    const int flags = writes ? SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE : SQLite::OPEN_READONLY;
    database_ = std::make_unique<SQLite::Database>(file.string(), flags, busy_timeout(place, local),
                                                   local ? "" : NetworkLock::layer(file, writes));
    if (lease_) {
      lock_ = std::make_unique<NetworkLock>(*database_, file, place.lock_patience);
      use_rollback_journal(*database_);  // before anything looks into the file
    }
    set_pragmas(*database_, mode, local);
    writes ? migrate(*database_) : check_schema(*database_);
  });
}

ResultStore::~ResultStore() = default;

void ResultStore::check(bool thorough) {
  with_database_errors(file_, [&] {
    const auto verdict =
        query_text(*database_, thorough ? "PRAGMA integrity_check(5)" : "PRAGMA quick_check(5)");
    if (verdict != "ok") throw SQLite::Exception(verdict.value_or("no answer"), SQLITE_CORRUPT);
    SQLite::Statement keys(*database_, "PRAGMA foreign_key_check");
    if (keys.executeStep()) {
      throw SQLite::Exception(cat("a row of table ", keys.getColumn(0).getString(),
                                  " refers to a missing row of ", keys.getColumn(2).getString()),
                              SQLITE_CORRUPT);
    }
  });
}

void ResultStore::optimize() {
  with_database_errors(file_, [&] { database_->exec("PRAGMA optimize"); });
}

void ResultStore::snapshot(const fs::path& target) {
  if (fs::exists(target))
    throw Error(cat(target.string(), ": exists already; a snapshot never overwrites a file"));
  if (target.has_parent_path()) make_directories(target.parent_path());
  with_database_errors(file_, [&] { execute(*database_, "VACUUM INTO ?", target.string()); });
}

}  // namespace ablate
