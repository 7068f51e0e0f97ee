#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <unordered_map>
#include <vector>

#include "results/chunk.h"
#include "results/record.h"
#include "results/sqlite.h"

namespace ablate {

/// The points of all series, in tables `sample` and `chunk`. Invariant: every sample of a series
/// lies behind all its chunks, so no point is held twice. Runs inside transactions of its user,
/// who is the only writer while the object lives.
class SeriesStore {
 public:
  explicit SeriesStore(SQLite::Database& database);

  /// The series of a run, metric and rank (-1: reduced), made when missing.
  std::int64_t series(std::int64_t run, std::int64_t metric, int rank);

  /// Adds points with increasing steps; a point at a known step replaces it. Long histories are
  /// packed at once, a short tail stays in `sample`.
  void add(std::int64_t series, const std::vector<CurvePoint>& points);
  /// Removes the points with first <= step < end.
  void erase(std::int64_t series, std::int64_t first, std::int64_t end);
  /// Packs everything: the series is complete.
  void seal(std::int64_t series);

  std::vector<CurvePoint> read(std::int64_t series);
  /// What `rule` makes of the series; nothing for an empty one.
  std::optional<CurvePoint> final_point(std::int64_t series, FinalRule rule);

  /// Forgets what it knows about series: after a rollback.
  void forget() { states_.clear(); }

 private:
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::min();
  struct State {
    std::int64_t max_step = kNone;        // over samples and chunks
    std::int64_t max_chunk_step = kNone;  // over chunks
    std::size_t samples = 0;
  };

  State& state(std::int64_t series);
  void read_chunks(std::int64_t series, std::vector<CurvePoint>& points);
  std::vector<CurvePoint> tail(std::int64_t series, std::size_t k);
  void read_samples(std::int64_t series, std::vector<CurvePoint>& points);
  void write_samples(std::int64_t series, std::span<const CurvePoint> points);
  void write_chunks(std::int64_t series, std::span<const CurvePoint> points);
  void dissolve_chunks(std::int64_t series);
  void pack_samples(std::int64_t series, bool all);

  SQLite::Database& db_;
  std::unordered_map<std::int64_t, State> states_;
  SQLite::Statement find_series_, make_series_;
  SQLite::Statement put_sample_, get_samples_, last_samples_, drop_samples_, count_samples_;
  SQLite::Statement put_chunk_, get_chunks_, last_chunk_, drop_chunks_;
};

}  // namespace ablate
