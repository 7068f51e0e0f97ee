#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "results/record.h"
#include "runner/core/files.h"
#include "runner/core/lease.h"
#include "runner/core/run_spec.h"

namespace SQLite {
class Database;
}

namespace ablate {

class NetworkLock;

/// A resolved run as it enters the database.
struct RegisteredRun {
  struct Method {
    std::string name;
    bool inherited = false;  ///< part of a parent's structure
  };
  struct Edge {
    std::string role;  ///< "init" or "teacher"
    std::string run_uid;
  };
  std::string run_uid;
  std::string config_hash, config_json;  ///< the spec without seeds
  std::string dataset, split;            ///< the name, and the settings that choose the samples
  std::uint64_t seed = 0;
  std::vector<Method> methods;
  std::vector<std::string> notes;  ///< for tables: which formulas of the methods are ours
  std::vector<Edge> parents;
  std::optional<std::int64_t> images_seen;  ///< over the whole lineage
  std::string label;                        ///< within its sweep
  int row = 0;                              ///< position of the label in the table
};

/// The run that a spec describes; label, row, notes and images_seen are left to the caller.
RegisteredRun registered_run(const RunSpec& spec);

struct SweepInfo {
  std::string name, spec_toml;
};

/// A right to start an attempt. `fence` is its number, to be compared before checkpoints are
/// renamed into place.
struct ClaimedAttempt {
  int attempt = 0;
  std::int64_t fence = 0;
};

/// Where a database lies.
struct StorePlace {
  FileSystemKind kind = FileSystemKind::Local;
  std::chrono::milliseconds lock_patience{60'000};  ///< with readers, on network file systems
};

/// Durable truth about runs: one SQLite file. Opened by `ablate` alone; training processes write
/// spools. All functions throw Error with the file and the way out when SQLite fails. One object
/// belongs to one thread; any number of processes may have the file open on a local file system.
class ResultStore {
 public:
  enum class Mode { ReadWrite, ReadOnly };

  /// ReadWrite creates the file and brings its schema up to date. Local file systems use a
  /// write-ahead log; on network ones nothing is locked: a rollback journal, full syncs, a lease
  /// that admits one writer at a time, and a folder FILE.lock that keeps readers out meanwhile.
  explicit ResultStore(const std::filesystem::path& file, Mode mode = Mode::ReadWrite);
  /// The same for a file that is known to lie at such a place.
  ResultStore(const std::filesystem::path& file, Mode mode, const StorePlace& place);
  ~ResultStore();
  ResultStore(const ResultStore&) = delete;
  ResultStore& operator=(const ResultStore&) = delete;

  const std::filesystem::path& file() const { return file_; }
  SQLite::Database& database() { return *database_; }
  /// Whether the file lies where processes of one host may share it.
  bool is_local() const { return !lease_; }

  // What was asked ------------------------------------------------------------------------------

  /// Inserts the sweep and its runs, or brings the sweep's list of runs up to date; runs known
  /// already keep their state. Parents must be in the list before their children, or known.
  void register_sweep(const SweepInfo& sweep, std::span<const RegisteredRun> runs);
  /// The same for runs outside any sweep.
  void register_runs(std::span<const RegisteredRun> runs);
  bool knows_run(const std::string& run_uid);
  /// The uid of the only run that begins with `prefix`. Throws SpecError when none or several do.
  std::string find_run(const std::string& prefix);

  // States --------------------------------------------------------------------------------------

  /// Runs of a sweep that may start now (ready or interrupted, all parents done), in table order,
  /// seed by seed.
  std::vector<std::string> ready_runs(const std::string& sweep);
  /// Begins an attempt, durably. Nothing when the run is not ready or interrupted any more.
  std::optional<ClaimedAttempt> claim(const std::string& run_uid);
  /// The attempt leaves the queue of a cluster as its job `job`: its time counts from now on.
  void leave_queue(const std::string& run_uid, int attempt, const std::string& job);
  /// A number (0 or below) for a bench job of the run; its state does not change.
  ClaimedAttempt claim_bench(const std::string& run_uid);
  /// Records how an attempt ended, unless its spool has told already, and moves the run on
  /// (transient becomes interrupted). False when a later attempt exists: nothing is changed then.
  bool finish(const std::string& run_uid, int attempt, const Outcome& outcome);
  /// failed, diverged or skipped -> ready (or planned); false for a run in another state.
  bool retry(const std::string& run_uid);
  /// done -> ready (or planned), so that the next sweep computes the run from its beginning: for a
  /// run whose records were damaged. False for a run in another state.
  bool recompute(const std::string& run_uid);
  /// Any state but done, running and skipped -> skipped.
  bool skip(const std::string& run_uid);
  /// Sets runs to ready whose parents are done by now; returns how many. finish() does it too.
  int refresh_ready();

  // Care ----------------------------------------------------------------------------------------

  /// Throws Error unless `PRAGMA quick_check` (or, thorough, integrity_check) and the foreign keys
  /// are in order.
  void check(bool thorough = false);
  /// Lets SQLite look after its statistics: call after batches.
  void optimize();
  /// Writes a whole copy for other hosts and readers; the target must not exist.
  void snapshot(const std::filesystem::path& target);

 private:
  bool start_again(const std::string& run_uid, std::string_view states);

  std::filesystem::path file_;
  std::optional<Lease> lease_;
  std::unique_ptr<NetworkLock> lock_;  // asked by the database as long as that lives
  std::unique_ptr<SQLite::Database> database_;
};

/// In a transaction of the caller: the effect of an outcome told by the spool of `rank`, or by the
/// launcher (no rank). Returns whether the attempt is the last one of its run.
bool apply_outcome(SQLite::Database& database, std::int64_t run_id, int attempt,
                   const Outcome& outcome, std::optional<int> rank);

}  // namespace ablate
