#include "results/ingest.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "results/missing_steps.h"
#include "results/projection.h"
#include "results/spool_reader.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

// Points held in memory before they are committed.
constexpr std::size_t kBatchPoints = 1'000'000;

std::vector<fs::path> spools_in(const std::vector<fs::path>& places) {
  std::vector<fs::path> files;
  for (const fs::path& place : places) {
    if (!fs::is_directory(place)) {
      files.push_back(place);
      continue;
    }
    for (const auto& entry :
         fs::recursive_directory_iterator(place, fs::directory_options::skip_permission_denied))
      if (entry.path().extension() == ".spool") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

struct Ingester::Progress {
  std::int64_t run = 0;
  std::string path;
  std::uint64_t offset = 0;
  std::uint32_t checksum = 0;
  std::uint64_t lost = 0;  // bytes in gaps before this ingest
  bool sealed = false;
};

fs::path ingest_lease(const fs::path& database) { return database.string() + ".ingest-lease"; }

Ingester::Ingester(ResultStore& store)
    : store_(store), lease_(Lease::take(ingest_lease(store.file()), "the results database")) {
  with_database_errors(store_.file(), [&] {
    SQLite::Database& db = store_.database();
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    execute(db, "UPDATE ingest_fence SET fence = fence + 1");
    fence_ = *query_integer(db, "SELECT fence FROM ingest_fence");
    transaction.commit();
  });
}

void Ingester::check_fence() {
  if (query_integer(store_.database(), "SELECT fence FROM ingest_fence") != fence_) {
    throw Error(cat(store_.file().string(),
                    ": another ingester has taken over; this one stops without writing"));
  }
}

IngestReport Ingester::ingest(const std::vector<fs::path>& places) {
  lease_.check();
  IngestReport report;
  with_database_errors(store_.file(), [&] {
    for (const fs::path& path : spools_in(places)) {
      try {
        ingest_file(path, report);
      } catch (const SQLite::Exception&) {
        throw;
      } catch (const SpecError& error) {
        report.problems.push_back(cat(path.string(), ": ", error.what()));
      }
    }
    for (const std::string& run : report.runs) {
      for (std::string& gap : missing_steps(store_.database(), run)) {
        report.problems.push_back(std::move(gap));
      }
    }
    if (report.files > 0) {
      store_.refresh_ready();
      store_.optimize();
    }
  });
  return report;
}

void Ingester::ingest_file(const fs::path& path, IngestReport& report) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw SpecError(cat("cannot be read: ", error.message()));
  const auto known = sizes_.find(path.string());
  if (known != sizes_.end() && known->second == size) return;
  const std::optional<SpoolHeader> header = read_spool_header(path);
  if (!header) {
    if (size > 0) throw SpecError("does not begin with a spool header: torn, or no spool file");
    return;
  }
  Progress progress;
  progress.path = path.string();
  begin_file(path, *header, progress);
  // On a local file system a gap is damage; elsewhere it may be data that this host does not see
  // yet, until the writer is known to have ended.
  const bool skip = store_.is_local() || is_sealed(path) || has_ended(*header, progress.run);
  SpoolReader reader(path, progress.offset,
                     skip ? SpoolReader::Gaps::Skip : SpoolReader::Gaps::Stop);
  bool any = false;
  while (ingest_batch(reader, *header, progress, report)) any = true;
  report.files += any ? 1 : 0;
  report.lost_bytes += reader.lost_bytes();
  if (reader.lost_bytes() > 0) {
    report.problems.push_back(cat(path.string(), ": ", reader.lost_bytes(),
                                  " bytes in the middle are damaged and were skipped"));
  }
  const bool torn = reader.tail_bytes() > 0 && has_ended(*header, progress.run);
  if (torn) report.torn_bytes += reader.tail_bytes();
  if (!reader.stopped_at_gap() && (torn || reader.tail_bytes() == 0)) sizes_[path.string()] = size;
}

// Whether the attempt writes no more: it said or was said to have ended, or has a successor.
bool Ingester::has_ended(const SpoolHeader& header, std::int64_t run) {
  return query_integer(store_.database(),
                       "SELECT 1 FROM attempt WHERE run_id = ?1 AND ((n = ?2 AND outcome IS NOT "
                       "NULL) OR (n > ?2 AND ?2 > 0)) LIMIT 1",
                       run, header.attempt)
      .has_value();
}

// Throws SpecError when the file cannot be used.
void Ingester::begin_file(const fs::path& path, const SpoolHeader& header, Progress& progress) {
  if (header.schema_version > kSpoolSchemaVersion) {
    throw SpecError(cat("has record version ", header.schema_version, ", this program knows ",
                        kSpoolSchemaVersion, "; use the newer ablate"));
  }
  if (!store_.knows_run(header.run_uid)) register_from_spec(path, header.run_uid);
  SQLite::Database& db = store_.database();
  progress.run = *query_integer(db, "SELECT run_id FROM run WHERE run_uid = ?", header.run_uid);
  auto row = prepare(db,
                     "SELECT bytes_done, last_crc, sealed, lost_bytes FROM spool "
                     "WHERE spool_uid = ?",
                     header.spool_uid);
  if (!row.executeStep()) return;
  progress.offset = static_cast<std::uint64_t>(row.getColumn(0).getInt64());
  progress.checksum = static_cast<std::uint32_t>(row.getColumn(1).getInt64());
  progress.sealed = row.getColumn(2).getInt() != 0;
  progress.lost = static_cast<std::uint64_t>(row.getColumn(3).getInt64());
  if (progress.offset == 0) return;
  const auto found = checksum_before(path, progress.offset);
  if (!found) {
    throw SpecError(cat("is shorter than the ", progress.offset,
                        " bytes read before: it was truncated; what was read is kept"));
  }
  if (*found != progress.checksum) {
    throw SpecError(cat("differs from what was read before at byte ", progress.offset,
                        ": it was changed; what was read is kept"));
  }
}

void Ingester::register_from_spec(const fs::path& path, const std::string& run_uid) {
  // FOLDER/<id>/attempt-N/rankR.spool: the spec is beside the attempts, or, for bench jobs, in the
  // output folder's runs.
  const fs::path folder = path.parent_path().parent_path().parent_path();
  std::vector<RegisteredRun> found;
  std::vector<std::string> wanted = {run_uid};
  while (!wanted.empty()) {  // parents come before their children in `found` at the end
    const std::string uid = wanted.back();
    wanted.pop_back();
    if (store_.knows_run(uid)) continue;
    const fs::path in_runs = RunPaths(folder.parent_path(), uid).spec();
    const fs::path beside = folder / uid / in_runs.filename();
    std::error_code ignored;
    const fs::path& file = fs::exists(beside, ignored) ? beside : in_runs;
    if (!fs::exists(file, ignored)) {
      throw SpecError(cat("belongs to run ", run_uid, ", which is not registered, and ",
                          file.string(),
                          " does not exist; run `ablate sweep` with its sweep file "
                          "first"));
    }
    RegisteredRun run =
        registered_run(RunSpec::from_json(nlohmann::json::parse(read_file(file), nullptr, false)));
    if (run.run_uid != uid)
      throw SpecError(cat(file.string(), " describes run ", run.run_uid, " instead of ", uid));
    for (const auto& parent : run.parents) wanted.push_back(parent.run_uid);
    found.insert(found.begin(), std::move(run));
  }
  store_.register_runs(found);
}

// One transaction; false when the file has nothing more.
bool Ingester::ingest_batch(SpoolReader& reader, const SpoolHeader& header, Progress& progress,
                            IngestReport& report) {
  std::optional<Frame> frame = reader.next();
  if (!frame) return false;
  SQLite::Database& db = store_.database();
  SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
  check_fence();
  SeriesStore series(db);
  AttemptIngest attempt(db, series, header, progress.run, report);
  const std::uint64_t begin = progress.offset;
  for (; frame; frame = reader.next()) {
    attempt.apply(*frame);
    progress.offset = reader.offset();
    progress.checksum = frame->checksum;
    progress.sealed = std::holds_alternative<Seal>(frame->record);
    if (attempt.pending() >= kBatchPoints) break;
  }
  attempt.finish();
  execute(db,
          "INSERT INTO spool(spool_uid, run_uid, attempt_n, rank, path, bytes_done, last_crc, "
          "sealed, lost_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
          "ON CONFLICT(spool_uid) DO UPDATE SET path = excluded.path, "
          "bytes_done = excluded.bytes_done, last_crc = excluded.last_crc, "
          "sealed = excluded.sealed, lost_bytes = excluded.lost_bytes",
          header.spool_uid, header.run_uid, header.attempt, header.rank, progress.path,
          progress.offset, progress.checksum, progress.sealed ? 1 : 0,
          progress.lost + reader.lost_bytes());
  transaction.commit();
  report.bytes += progress.offset - begin;
  report.runs.insert(header.run_uid);
  return true;
}

std::vector<fs::path> removable_spools(ResultStore& store) {
  store.check();
  // A checkpoint of the write-ahead log syncs the database file itself.
  with_database_errors(store.file(),
                       [&] { store.database().exec("PRAGMA wal_checkpoint(TRUNCATE)"); });
  return with_database_errors(store.file(), [&] {
    std::vector<fs::path> files;
    SQLite::Statement rows(store.database(),
                           "SELECT path, bytes_done, state FROM spool JOIN run USING(run_uid) "
                           "WHERE attempt_n > 0 ORDER BY path");
    while (rows.executeStep()) {
      const fs::path path = rows.getColumn(0).getString();
      std::error_code missing;
      const std::uintmax_t size = fs::file_size(path, missing);
      if (!missing && is_terminal(rows.getColumn(2).getString()) &&
          size == static_cast<std::uintmax_t>(rows.getColumn(1).getInt64()))
        files.push_back(path);
    }
    return files;
  });
}

}  // namespace ablate
