#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "results/attempt_facts.h"
#include "results/record.h"
#include "results/series_store.h"
#include "results/spool_frame.h"
#include "results/sqlite.h"

namespace ablate {

/// Counts of one ingest; also says what went wrong without stopping it.
struct IngestReport {
  std::int64_t files = 0;       ///< that had something new
  std::int64_t points = 0;      ///< stored
  std::int64_t superseded = 0;  ///< points that a later attempt writes anew: dropped
  std::int64_t records = 0;     ///< other than points
  std::uint64_t bytes = 0;
  std::uint64_t lost_bytes = 0;       ///< damaged parts of files
  std::uint64_t torn_bytes = 0;       ///< half-written records at the end of attempts that ended
  std::set<std::string> runs;         ///< uids with something new
  std::vector<std::string> problems;  ///< one line each, naming the file
};

/// Applies the records of one spool within one transaction; made anew for each. Every method is
/// idempotent, and any order of spools gives the same database.
class AttemptIngest {
 public:
  /// Finds or makes the rows of the attempt. On an attempt's first spool, drops what earlier
  /// attempts wrote from its first step on. `run` is a registered run.
  AttemptIngest(SQLite::Database& database, SeriesStore& series, const SpoolHeader& header,
                std::int64_t run, IngestReport& report);

  void apply(const Frame& frame);
  /// Stores the points gathered, updates projections, and packs the series of a run that has
  /// ended.
  void finish();
  /// Points gathered since the beginning.
  std::size_t pending() const { return pending_; }

 private:
  struct Metric {
    std::int64_t id = 0;
    bool per_rank = false;
    std::vector<CurvePoint> points;
  };

  void find_attempt();
  void bury_earlier_attempts();
  void supersede();
  void find_range();
  bool owns(std::int64_t step) const { return step >= first_step_ && step < end_step_; }
  void problem(const std::string& what);
  Metric* metric(std::uint32_t local_id);

  void on(const SpoolHeader&, std::uint32_t) {}
  void on(const MetricDef& def, std::uint32_t sequence);
  void on(const Points& points, std::uint32_t sequence);
  void on(const Event& event, std::uint32_t sequence);
  void on(const SampleBits& bits, std::uint32_t sequence);
  void on(const Facts& facts, std::uint32_t sequence);
  void on(const CheckpointNote& note, std::uint32_t sequence);
  void on(const BenchNote& note, std::uint32_t sequence);
  void on(const FinalValue& value, std::uint32_t sequence);
  void on(const Outcome& outcome, std::uint32_t sequence);
  void on(const Seal&, std::uint32_t) {}
  void on(const UnknownRecord& record, std::uint32_t sequence);

  SQLite::Database& db_;
  SeriesStore& series_;
  const SpoolHeader& header_;
  IngestReport& report_;
  AttemptKey key_;
  std::int64_t first_step_ = 0;
  std::int64_t end_step_ = 0;  // first step of a later attempt
  std::unordered_map<std::uint32_t, Metric> metrics_;
  std::set<std::int64_t> touched_;  // metrics whose projection may have changed
  std::size_t pending_ = 0;
};

}  // namespace ablate
