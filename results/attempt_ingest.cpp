#include "results/attempt_ingest.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>
#include <sqlite3.h>

#include "results/projection.h"
#include "results/spool_frame.h"
#include "results/store.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();

// Points of one metric in the order of their steps, the last of equal steps alone.
void sort_by_step(std::vector<CurvePoint>& points) {
  const auto before = [](const CurvePoint& a, const CurvePoint& b) { return a.step < b.step; };
  const auto not_before = [](const CurvePoint& a, const CurvePoint& b) { return a.step >= b.step; };
  if (std::adjacent_find(points.begin(), points.end(), not_before) == points.end()) return;
  std::stable_sort(points.begin(), points.end(), before);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (i + 1 == points.size() || points[i + 1].step != points[i].step) points[kept++] = points[i];
  points.resize(kept);
}

}  // namespace

AttemptIngest::AttemptIngest(SQLite::Database& db, SeriesStore& series, const SpoolHeader& header,
                             std::int64_t run, IngestReport& report)
    : db_(db), series_(series), header_(header), report_(report) {
  key_.run = run;
  key_.rank = header.rank;
  find_attempt();
  find_range();
}

void AttemptIngest::problem(const std::string& what) {
  report_.problems.push_back(cat("run ", header_.run_uid, " attempt ", header_.attempt, " rank ",
                                 header_.rank, ": ", what));
}

void AttemptIngest::find_attempt() {
  const int added = execute(db_,
                            "INSERT OR IGNORE INTO attempt(run_id, n, fence, start_us) "
                            "VALUES (?1, ?2, ?2, ?3)",
                            key_.run, header_.attempt, header_.start_us);
  auto row = prepare(db_, "SELECT attempt_id, first_step FROM attempt WHERE run_id = ? AND n = ?",
                     key_.run, header_.attempt);
  row.executeStep();
  key_.attempt = row.getColumn(0).getInt64();
  const auto first_step = integer_or_null(row.getColumn(1));
  row.reset();
  execute(db_, "INSERT OR IGNORE INTO attempt_rank(attempt_id, rank) VALUES (?, ?)", key_.attempt,
          key_.rank);
  if (added > 0 && header_.attempt > 0) {
    execute(db_,
            "UPDATE run SET state = 'running' WHERE run_id = ?1 AND state <> 'skipped' AND "
            "?2 = (SELECT max(n) FROM attempt WHERE run_id = ?1)",
            key_.run, header_.attempt);
  }
  if (added > 0) bury_earlier_attempts();
  if (first_step && *first_step != header_.first_step)
    problem(cat("claims to begin at step ", header_.first_step, ", another rank at ", *first_step));
  if (first_step) return;
  execute(db_, "UPDATE attempt SET first_step = ? WHERE attempt_id = ?", header_.first_step,
          key_.attempt);
  if (header_.attempt > 0) supersede();
}

// Attempts that nobody watched and that a later one followed were killed; their own spools may
// still tell otherwise.
void AttemptIngest::bury_earlier_attempts() {
  execute(db_,
          "UPDATE attempt SET outcome = 'transient', cause = 'killed', detail = 'a later attempt "
          "began without its having told an end' WHERE run_id = ?1 AND n > 0 AND outcome IS NULL "
          "AND n < (SELECT max(n) FROM attempt WHERE run_id = ?1)",
          key_.run);
}

// The steps this attempt owns: from its first one to the first one of any later attempt. So every
// step of a run has one owner, whichever spool is read first.
void AttemptIngest::find_range() {
  first_step_ =
      *query_integer(db_, "SELECT first_step FROM attempt WHERE attempt_id = ?", key_.attempt);
  end_step_ = query_integer(db_, "SELECT min(first_step) FROM attempt WHERE run_id = ? AND n > ?",
                            key_.run, std::max(header_.attempt, 0))
                  .value_or(kForever);
  if (header_.attempt <= 0) end_step_ = first_step_;  // a bench job writes no points
}

void AttemptIngest::supersede() {
  find_range();
  std::vector<std::pair<std::int64_t, std::int64_t>> all;
  auto rows = prepare(db_, "SELECT series_id, metric_id FROM series WHERE run_id = ?", key_.run);
  while (rows.executeStep())
    all.emplace_back(rows.getColumn(0).getInt64(), rows.getColumn(1).getInt64());
  for (const auto& [series, metric] : all) {
    series_.erase(series, first_step_, end_step_);
    touched_.insert(metric);
  }
  for (const char* table : {"declared_final", "sample_bits"}) {
    execute(db_, cat("DELETE FROM ", table, " WHERE run_id = ? AND step >= ? AND step < ?"),
            key_.run, first_step_, end_step_);
  }
  // A checkpoint at the first step is the one this attempt goes on from: it stays.
  execute(db_, "DELETE FROM checkpoint WHERE run_id = ? AND step > ? AND step < ?", key_.run,
          first_step_, end_step_);
}

void AttemptIngest::apply(const Frame& frame) {
  if (!std::holds_alternative<Points>(frame.record)) ++report_.records;
  try {
    std::visit([&](const auto& record) { on(record, frame.sequence); }, frame.record);
  } catch (const SpecError& error) {
    problem(error.what());
  } catch (const SQLite::Exception& error) {
    // A value that a column does not take is the fault of this record alone.
    if (error.getErrorCode() != SQLITE_CONSTRAINT) throw;
    problem(cat("a record does not fit the schema: ", error.what()));
  }
}

void AttemptIngest::on(const MetricDef& def, std::uint32_t) {
  execute(db_,
          "INSERT OR IGNORE INTO metric(name, unit, better, kind, final_rule) "
          "VALUES (?, ?, ?, ?, ?)",
          def.name, def.unit, static_cast<int>(def.better), name_of(def.kind),
          name_of(def.final_rule));
  auto row = prepare(
      db_, "SELECT metric_id, unit, better, kind, final_rule FROM metric WHERE name = ?", def.name);
  row.executeStep();
  const std::int64_t id = row.getColumn(0).getInt64();
  if (row.getColumn(1).getString() != def.unit ||
      row.getColumn(2).getInt() != static_cast<int>(def.better) ||
      row.getColumn(3).getString() != name_of(def.kind) ||
      row.getColumn(4).getString() != name_of(def.final_rule)) {
    problem(cat("metric \"", def.name,
                "\" has other attributes than those known under its name, "
                "which are kept"));
  }
  execute(db_, "INSERT OR REPLACE INTO spool_metric VALUES (?, ?, ?, ?)", header_.spool_uid, def.id,
          id, def.per_rank ? 1 : 0);
  metrics_[def.id] = {id, def.per_rank, {}};
}

// Definitions may have been read in an earlier transaction.
AttemptIngest::Metric* AttemptIngest::metric(std::uint32_t local_id) {
  const auto found = metrics_.find(local_id);
  if (found != metrics_.end()) return &found->second;
  auto row = prepare(
      db_, "SELECT metric_id, per_rank FROM spool_metric WHERE spool_uid = ? AND local_id = ?",
      header_.spool_uid, local_id);
  if (!row.executeStep()) return nullptr;
  Metric known{row.getColumn(0).getInt64(), row.getColumn(1).getInt() != 0, {}};
  return &metrics_.emplace(local_id, std::move(known)).first->second;
}

void AttemptIngest::on(const Points& points, std::uint32_t) {
  for (const Point& point : points.points) {
    if (!owns(point.step)) {
      ++report_.superseded;
      continue;
    }
    Metric* const target = metric(point.metric);
    if (target == nullptr) {
      problem(cat("points of metric ", point.metric, ", whose definition is lost"));
      return;
    }
    target->points.push_back({point.step, point.value});
    ++pending_;
  }
}

void AttemptIngest::on(const Event& event, std::uint32_t sequence) {
  execute(db_, "INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", key_.attempt, key_.rank,
          sequence, event.step, event.t_us, event.kind,
          event.body.empty() ? std::optional<std::string>() : event.body);
  if (event.kind == "finalized" && owns(event.step)) {
    execute(db_,
            "UPDATE run SET structure_hash = json_extract(?1, '$.structure_hash') "
            "WHERE run_id = ?2 AND json_valid(?1)",
            event.body, key_.run);
  }
}

void AttemptIngest::on(const SampleBits& bits, std::uint32_t) {
  if (!owns(bits.step)) return;
  execute(db_,
          "INSERT OR REPLACE INTO sample_bits(run_id, dataset_id, kind, step, n, bits) "
          "SELECT run_id, dataset_id, ?, ?, ?, ? FROM run WHERE run_id = ?",
          bits.kind, bits.step, bits.n, Blob{bits.bits}, key_.run);
}

void AttemptIngest::on(const Facts& facts, std::uint32_t sequence) {
  const std::string rest = store_facts(db_, key_, facts);
  if (!rest.empty())
    on(Event{first_step_, header_.start_us, std::string(name_of(facts.kind)), rest}, sequence);
}

void AttemptIngest::on(const CheckpointNote& note, std::uint32_t) {
  if (note.step < first_step_ || note.step > end_step_) return;
  // At end_step_ a later attempt may have noted the same checkpoint anew: its word stands.
  execute(db_,
          cat("INSERT OR ", note.step == end_step_ ? "IGNORE" : "REPLACE",
              " INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?)"),
          key_.run, note.step, note.path, note.bytes, note.manifest_sha256,
          note.structure_hash.empty() ? std::optional<std::string>() : note.structure_hash,
          note.deployable ? 1 : 0);
}

void AttemptIngest::on(const BenchNote& note, std::uint32_t sequence) {
  store_bench(db_, key_, note, cat(header_.spool_uid, ":", sequence), header_.start_us);
}

void AttemptIngest::on(const FinalValue& value, std::uint32_t) {
  if (!owns(value.step)) return;
  Metric* const target = metric(value.metric);
  if (target == nullptr)
    throw SpecError(cat("a final value of metric ", value.metric, ", whose definition is lost"));
  execute(db_,
          "INSERT INTO declared_final(run_id, metric_id, value, step) VALUES (?, ?, ?, ?) "
          "ON CONFLICT(run_id, metric_id) DO UPDATE SET value = excluded.value, "
          "step = excluded.step WHERE excluded.step >= step",
          key_.run, target->id, value.value, value.step);
  touched_.insert(target->id);
}

void AttemptIngest::on(const Outcome& outcome, std::uint32_t) {
  if (!is_known_cause(outcome.cause))
    throw SpecError(cat("unknown cause of an outcome: ", outcome.cause));
  apply_outcome(db_, key_.run, header_.attempt, outcome, key_.rank);
}

void AttemptIngest::on(const UnknownRecord& record, std::uint32_t) {
  problem(cat("a record of type ", record.type, " is newer than this program and is skipped"));
}

void AttemptIngest::finish() {
  for (auto& [local_id, metric] : metrics_) {
    if (metric.points.empty()) continue;
    sort_by_step(metric.points);
    const int rank = metric.per_rank ? header_.rank : -1;
    series_.add(series_.series(key_.run, metric.id, rank), metric.points);
    report_.points += static_cast<std::int64_t>(metric.points.size());
    if (!metric.per_rank) touched_.insert(metric.id);
  }
  for (const std::int64_t metric : touched_) project_final(db_, series_, key_.run, metric);
  const auto state = query_text(db_, "SELECT state FROM run WHERE run_id = ?", key_.run);
  if (state && is_terminal(*state)) seal_run(db_, series_, key_.run);
}

}  // namespace ablate
