#include <algorithm>

#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr const char* kParentsDone =
    "NOT EXISTS (SELECT 1 FROM run_edge e JOIN run p ON p.run_id = e.parent_id "
    "WHERE e.run_id = run.run_id AND p.state <> 'done')";

std::int64_t id_of_run(SQLite::Database& db, const std::string& run_uid) {
  const auto id = query_integer(db, "SELECT run_id FROM run WHERE run_uid = ?", run_uid);
  if (!id) throw SpecError(cat("no run ", run_uid, " in the database"));
  return *id;
}

// 0 without any: bench jobs do not count.
int last_attempt(SQLite::Database& db, std::int64_t run) {
  return static_cast<int>(
      query_integer(db, "SELECT max(n, 0) FROM (SELECT max(n) n FROM attempt WHERE run_id = ?)",
                    run)
          .value_or(0));
}

std::string state_after(OutcomeState outcome) {
  return outcome == OutcomeState::Transient ? "interrupted" : std::string(name_of(outcome));
}

// A commit that survives power loss: an attempt's number names its folder, so it must never be
// given twice. Other transactions may be lost then, for the spools are still there.
class DurableTransaction {
 public:
  explicit DurableTransaction(SQLite::Database& db)
      : db_(db), level_(*query_integer(db, "PRAGMA synchronous")) {
    db_.exec("PRAGMA synchronous = FULL");
    transaction_.emplace(db_, SQLite::TransactionBehavior::IMMEDIATE);
  }
  ~DurableTransaction() {
    transaction_.reset();
    db_.tryExec(cat("PRAGMA synchronous = ", level_));
  }
  DurableTransaction(const DurableTransaction&) = delete;
  DurableTransaction& operator=(const DurableTransaction&) = delete;
  void commit() { transaction_->commit(); }

 private:
  SQLite::Database& db_;
  std::int64_t level_;
  std::optional<SQLite::Transaction> transaction_;
};

}  // namespace

bool apply_outcome(SQLite::Database& db, std::int64_t run_id, int attempt, const Outcome& outcome,
                   std::optional<int> rank) {
  const bool last = attempt > 0 && attempt == last_attempt(db, run_id);
  // Rank 0 alone writes final weights and numbers: another rank may be done before it is, and it
  // may be killed meanwhile.
  if (rank.value_or(0) > 0 && outcome.state == OutcomeState::Done) return last;
  auto known = prepare(db, "SELECT outcome, told_by FROM attempt WHERE run_id = ? AND n = ?",
                       run_id, attempt);
  if (!known.executeStep()) return last;
  const bool was_told = !known.getColumn(0).isNull();
  const std::string before = known.getColumn(0).getString();
  const auto told_by = integer_or_null(known.getColumn(1));
  if (told_by && (!rank || *rank > *told_by)) return last;  // the lowest rank's word stands
  known.reset();
  execute(db,
          "UPDATE attempt SET outcome = ?, cause = ?, detail = ?, last_step = ?, exit_code = ?, "
          "end_us = ?, told_by = ? WHERE run_id = ? AND n = ?",
          name_of(outcome.state), outcome.cause, outcome.detail, outcome.last_step,
          outcome.exit_code, outcome.end_us, rank, run_id, attempt);
  if (!last || (was_told && before == name_of(outcome.state))) return last;
  execute(db, "UPDATE run SET state = ? WHERE run_id = ?", state_after(outcome.state), run_id);
  if (outcome.state == OutcomeState::Done) {
    execute(db, "UPDATE run SET images_seen = coalesce(images_seen, ?) WHERE run_id = ?",
            outcome.images_seen, run_id);
  }
  return last;
}

std::vector<std::string> ResultStore::ready_runs(const std::string& sweep) {
  return with_database_errors(file_, [&] {
    auto rows = prepare(*database_,
                        cat("SELECT run.run_uid FROM sweep s JOIN sweep_run sr USING(sweep_id) "
                            "JOIN run ON run.run_id = sr.run_id LEFT JOIN sweep_variant sv "
                            "ON sv.sweep_id = s.sweep_id AND sv.variant_id = run.variant_id "
                            "WHERE s.name = ? AND run.state IN ('ready', 'interrupted') AND ",
                            kParentsDone, " ORDER BY run.seed, sv.position, run.run_id"),
                        sweep);
    std::vector<std::string> runs;
    while (rows.executeStep()) runs.push_back(rows.getColumn(0).getString());
    return runs;
  });
}

std::optional<ClaimedAttempt> ResultStore::claim(const std::string& run_uid) {
  return with_database_errors(file_, [&]() -> std::optional<ClaimedAttempt> {
    SQLite::Database& db = *database_;
    DurableTransaction transaction(db);
    const std::int64_t run = id_of_run(db, run_uid);
    const int changed = execute(db,
                                cat("UPDATE run SET state = 'running' WHERE run_id = ? AND "
                                    "state IN ('ready', 'interrupted') AND ",
                                    kParentsDone),
                                run);
    if (changed == 0) return std::nullopt;
    // The number grows for ever within a run, so it is the fence, too.
    const int attempt = last_attempt(db, run) + 1;
    execute(db, "INSERT INTO attempt(run_id, n, fence, start_us) VALUES (?, ?, ?, ?)", run, attempt,
            attempt, now_us());
    transaction.commit();
    return ClaimedAttempt{attempt, attempt};
  });
}

void ResultStore::leave_queue(const std::string& run_uid, int attempt, const std::string& job) {
  with_database_errors(file_, [&] {
    execute(*database_,
            "UPDATE attempt SET start_us = iif(end_us IS NULL, ?, start_us), slurm_job = ? WHERE "
            "run_id = ? AND n = ?",
            now_us(), job, id_of_run(*database_, run_uid), attempt);
  });
}

ClaimedAttempt ResultStore::claim_bench(const std::string& run_uid) {
  return with_database_errors(file_, [&] {
    DurableTransaction transaction(*database_);
    const std::int64_t run = id_of_run(*database_, run_uid);
    const auto first =
        query_integer(*database_, "SELECT min(n) FROM attempt WHERE run_id = ?", run);
    const std::int64_t number = std::min<std::int64_t>(first.value_or(1), 1) - 1;
    execute(*database_, "INSERT INTO attempt(run_id, n, fence, start_us) VALUES (?, ?, ?, ?)", run,
            number, number, now_us());
    transaction.commit();
    return ClaimedAttempt{static_cast<int>(number), number};
  });
}

bool ResultStore::finish(const std::string& run_uid, int attempt, const Outcome& outcome) {
  ABLATE_CHECK(is_known_cause(outcome.cause), "unknown cause \"", outcome.cause, "\"");
  return with_database_errors(file_, [&] {
    SQLite::Database& db = *database_;
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    Outcome timed = outcome;
    if (timed.end_us == 0) timed.end_us = now_us();
    const std::int64_t run = id_of_run(db, run_uid);
    if (attempt > 0 && attempt != last_attempt(db, run)) return false;
    apply_outcome(db, run, attempt, timed, std::nullopt);
    refresh_ready();
    transaction.commit();
    return true;
  });
}

bool ResultStore::retry(const std::string& run_uid) {
  return start_again(run_uid, "'failed', 'diverged', 'skipped'");
}

bool ResultStore::recompute(const std::string& run_uid) { return start_again(run_uid, "'done'"); }

bool ResultStore::start_again(const std::string& run_uid, std::string_view states) {
  return with_database_errors(file_, [&] {
    SQLite::Transaction transaction(*database_, SQLite::TransactionBehavior::IMMEDIATE);
    const bool changed =
        execute(
            *database_,
            cat("UPDATE run SET state = 'planned' WHERE run_uid = ? AND state IN (", states, ")"),
            run_uid) > 0;
    refresh_ready();
    transaction.commit();
    return changed;
  });
}

bool ResultStore::skip(const std::string& run_uid) {
  return with_database_errors(file_, [&] {
    return execute(*database_,
                   "UPDATE run SET state = 'skipped' WHERE run_uid = ? AND "
                   "state NOT IN ('done', 'running', 'skipped')",
                   run_uid) > 0;
  });
}

int ResultStore::refresh_ready() {
  return with_database_errors(file_, [&] {
    return execute(*database_, cat("UPDATE run SET state = 'ready' WHERE state = 'planned' AND ",
                                   kParentsDone));
  });
}

}  // namespace ablate
