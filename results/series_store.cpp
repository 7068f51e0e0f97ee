#include "results/series_store.h"

#include <algorithm>
#include <cmath>

#include <sqlite3.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

// Samples of one series that stay unpacked at most: few enough to keep the table small, many
// enough not to pack on every look at a live spool.
constexpr std::size_t kTailPoints = 2 * kChunkPoints;

constexpr const char* kChunkColumns = "step0, stride, n, codec, data";

Chunk chunk_of(SQLite::Statement& row) {
  Chunk chunk;
  chunk.step0 = row.getColumn(0).getInt64();
  chunk.stride = row.getColumn(1).getInt64();
  chunk.n = row.getColumn(2).getInt64();
  chunk.codec = row.getColumn(3).getInt();
  const SQLite::Column data = row.getColumn(4);
  chunk.data.assign(static_cast<const char*>(data.getBlob()),
                    static_cast<std::size_t>(data.getBytes()));
  return chunk;
}

void unpack_or_throw(const Chunk& chunk, std::vector<CurvePoint>& points) {
  if (!unpack(chunk, points)) {
    throw SQLite::Exception(cat("a packed chunk (step ", chunk.step0, ") does not decode"),
                            SQLITE_CORRUPT);
  }
}

double sample_of(const SQLite::Column& column) {
  return column.isNull() ? std::nan("") : column.getDouble();
}

}  // namespace

SeriesStore::SeriesStore(SQLite::Database& db)
    : db_(db),
      find_series_(db,
                   "SELECT series_id FROM series WHERE run_id = ? AND metric_id = ? AND "
                   "rank = ?"),
      make_series_(db, "INSERT INTO series(run_id, metric_id, rank) VALUES (?, ?, ?)"),
      put_sample_(db, "INSERT OR REPLACE INTO sample VALUES (?, ?, ?)"),
      get_samples_(db, "SELECT step, value FROM sample WHERE series_id = ? ORDER BY step"),
      last_samples_(
          db, "SELECT step, value FROM sample WHERE series_id = ? ORDER BY step DESC LIMIT ?"),
      drop_samples_(db, "DELETE FROM sample WHERE series_id = ? AND step >= ? AND step < ?"),
      count_samples_(db, "SELECT count(*), max(step) FROM sample WHERE series_id = ?"),
      put_chunk_(db,
                 "INSERT INTO chunk(series_id, step0, stride, n, codec, vmin, vmax, vsum, "
                 "vlast, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
      get_chunks_(db,
                  cat("SELECT ", kChunkColumns, " FROM chunk WHERE series_id = ? ORDER BY step0")),
      last_chunk_(db, cat("SELECT ", kChunkColumns,
                          " FROM chunk WHERE series_id = ? ORDER BY step0 DESC LIMIT 1")),
      drop_chunks_(db, "DELETE FROM chunk WHERE series_id = ?") {}

std::int64_t SeriesStore::series(std::int64_t run, std::int64_t metric, int rank) {
  rebind(find_series_, run, metric, rank);
  if (find_series_.executeStep()) {
    const std::int64_t id = find_series_.getColumn(0).getInt64();
    find_series_.reset();
    return id;
  }
  rebind(make_series_, run, metric, rank).exec();
  return db_.getLastInsertRowid();
}

SeriesStore::State& SeriesStore::state(std::int64_t series) {
  const auto [entry, added] = states_.try_emplace(series);
  State& state = entry->second;
  if (!added) return state;
  rebind(last_chunk_, series);
  if (last_chunk_.executeStep()) {
    std::vector<CurvePoint> points;
    unpack_or_throw(chunk_of(last_chunk_), points);
    state.max_step = state.max_chunk_step = points.back().step;
  }
  last_chunk_.reset();
  rebind(count_samples_, series).executeStep();
  state.samples = static_cast<std::size_t>(count_samples_.getColumn(0).getInt64());
  if (state.samples > 0) state.max_step = count_samples_.getColumn(1).getInt64();
  count_samples_.reset();
  return state;
}

void SeriesStore::read_chunks(std::int64_t series, std::vector<CurvePoint>& points) {
  rebind(get_chunks_, series);
  while (get_chunks_.executeStep()) unpack_or_throw(chunk_of(get_chunks_), points);
  get_chunks_.reset();
}

void SeriesStore::read_samples(std::int64_t series, std::vector<CurvePoint>& points) {
  rebind(get_samples_, series);
  while (get_samples_.executeStep())
    points.push_back({get_samples_.getColumn(0).getInt64(), sample_of(get_samples_.getColumn(1))});
  get_samples_.reset();
}

void SeriesStore::write_samples(std::int64_t series, std::span<const CurvePoint> points) {
  for (const CurvePoint& point : points)
    rebind(put_sample_, series, point.step, point.value).exec();
}

void SeriesStore::write_chunks(std::int64_t series, std::span<const CurvePoint> points) {
  for (const Chunk& chunk : pack(points)) {
    rebind(put_chunk_, series, chunk.step0, chunk.stride, chunk.n, chunk.codec, chunk.min,
           chunk.max, chunk.sum, chunk.last, Blob{chunk.data})
        .exec();
  }
}

// Turns chunks back into samples, for points that must go between them.
void SeriesStore::dissolve_chunks(std::int64_t series) {
  std::vector<CurvePoint> points;
  read_chunks(series, points);
  rebind(drop_chunks_, series).exec();
  write_samples(series, points);
  states_.erase(series);
}

void SeriesStore::add(std::int64_t series, const std::vector<CurvePoint>& points) {
  if (points.empty()) return;
  State& known = state(series);
  const std::size_t n = points.size();
  if (points.front().step > known.max_step && known.samples + n >= kTailPoints) {
    // The usual case for a spool read in one go: straight into chunks.
    std::vector<CurvePoint> all;
    if (known.samples > 0) read_samples(series, all);
    rebind(drop_samples_, series, kNone, points.front().step).exec();
    all.insert(all.end(), points.begin(), points.end());
    const std::size_t packed = all.size() / kChunkPoints * kChunkPoints;
    const std::span<const CurvePoint> span = all;
    write_chunks(series, span.first(packed));
    write_samples(series, span.subspan(packed));
    known = {all.back().step, all[packed - 1].step, all.size() - packed};
    return;
  }
  if (points.front().step > known.max_step) {  // the usual case for a live spool
    write_samples(series, points);
    known.max_step = points.back().step;
    known.samples += n;
    return;
  }
  if (points.front().step <= known.max_chunk_step) dissolve_chunks(series);
  write_samples(series, points);
  states_.erase(series);
  if (state(series).samples >= kTailPoints) pack_samples(series, false);
}

void SeriesStore::pack_samples(std::int64_t series, bool all) {
  std::vector<CurvePoint> points;
  read_samples(series, points);
  const std::size_t packed = all ? points.size() : points.size() / kChunkPoints * kChunkPoints;
  if (packed == 0) return;
  points.resize(packed);
  write_chunks(series, points);
  rebind(drop_samples_, series, kNone, points.back().step + 1).exec();
  states_.erase(series);
}

void SeriesStore::erase(std::int64_t series, std::int64_t first, std::int64_t end) {
  if (first >= end || state(series).max_step < first) return;
  if (state(series).max_chunk_step >= first) dissolve_chunks(series);
  rebind(drop_samples_, series, first, end).exec();
  states_.erase(series);
}

void SeriesStore::seal(std::int64_t series) {
  if (state(series).samples > 0) pack_samples(series, true);
}

std::vector<CurvePoint> SeriesStore::read(std::int64_t series) {
  std::vector<CurvePoint> points;
  read_chunks(series, points);
  read_samples(series, points);
  return points;
}

// The last `k` points, or all if there are fewer.
std::vector<CurvePoint> SeriesStore::tail(std::int64_t series, std::size_t k) {
  std::vector<CurvePoint> points;
  rebind(last_samples_, series, k);
  while (last_samples_.executeStep()) {
    points.push_back(
        {last_samples_.getColumn(0).getInt64(), sample_of(last_samples_.getColumn(1))});
  }
  last_samples_.reset();
  std::reverse(points.begin(), points.end());
  if (points.size() == k) return points;
  points = read(series);
  if (points.size() > k)
    points.erase(points.begin(), points.end() - static_cast<std::ptrdiff_t>(k));
  return points;
}

std::optional<CurvePoint> SeriesStore::final_point(std::int64_t series, FinalRule rule) {
  if (rule == FinalRule::Last || rule == FinalRule::MeanLastK) {
    const std::size_t k = rule == FinalRule::Last ? 1 : kFinalMeanPoints;
    const std::vector<CurvePoint> points = tail(series, k);
    if (points.empty()) return std::nullopt;
    double sum = 0;
    for (const CurvePoint& point : points) sum += point.value;
    return CurvePoint{points.back().step, sum / static_cast<double>(points.size())};
  }
  std::optional<CurvePoint> best;  // the first of equals; NaN only when there is nothing else
  for (const CurvePoint& point : read(series)) {
    const bool wins =
        !best || std::isnan(best->value) ||
        (rule == FinalRule::Max ? point.value > best->value : point.value < best->value);
    if (wins) best = point;
  }
  return best;
}

}  // namespace ablate
