#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <unordered_map>
#include <vector>

#include "results/attempt_ingest.h"
#include "results/spool_reader.h"
#include "results/store.h"
#include "runner/core/lease.h"

namespace ablate {

/// Merges spool files into the database, each record exactly once, in any order of files and after
/// any number of interruptions: what a file has given and how far it was read change in one
/// transaction. Holds the lease for ingesting as long as it lives.
class Ingester {
 public:
  /// Throws Error when another process ingests into this database.
  explicit Ingester(ResultStore& store);

  /// Reads what is new in the given files, and in the *.spool files below the given folders. A run
  /// that is not registered is, from the spec beside its spools (see RunPaths). What is wrong with
  /// one file is reported and does not hold up the others; throws Error when the database fails or
  /// the lease is lost.
  IngestReport ingest(const std::vector<std::filesystem::path>& places);

 private:
  struct Progress;

  void ingest_file(const std::filesystem::path& path, IngestReport& report);
  void begin_file(const std::filesystem::path& path, const SpoolHeader& header, Progress& progress);
  bool has_ended(const SpoolHeader& header, std::int64_t run);
  void register_from_spec(const std::filesystem::path& path, const std::string& run_uid);
  bool ingest_batch(SpoolReader& reader, const SpoolHeader& header, Progress& progress,
                    IngestReport& report);
  void check_fence();

  ResultStore& store_;
  Lease lease_;
  std::int64_t fence_ = 0;
  std::unordered_map<std::string, std::uintmax_t> sizes_;  // files read to their end, by path
};

/// The lease of whoever feeds a database and so works on its runs.
std::filesystem::path ingest_lease(const std::filesystem::path& database);

/// Spool files whose content is safe in the database, which has just been checked: fully read, of
/// runs that have ended for good. Empty when the database is not in order.
std::vector<std::filesystem::path> removable_spools(ResultStore& store);

}  // namespace ablate
