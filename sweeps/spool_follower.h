#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "results/spool_reader.h"
#include "sweeps/progress.h"

namespace ablate {

/// What the spool of an attempt's rank 0 says so far.
struct RunProgress {
  std::int64_t step = 0;
  std::optional<double> loss;  ///< train/loss
  std::optional<HeadlineScore> score;
  std::optional<double> step_s;      ///< time/step_s, averaged over recent steps
  std::optional<double> device_mib;  ///< memory/device_mib: of the whole process
  std::optional<Outcome> outcome;
  bool sealed = false;        ///< nothing follows
  std::uint64_t records = 0;  ///< frames seen: grows while the run lives
};

/// Reads a spool as it grows, for the eyes only: the database is fed by the ingester.
class SpoolFollower {
 public:
  /// The file need not exist yet.
  explicit SpoolFollower(std::filesystem::path spool) : path_(std::move(spool)) {}

  /// Reads what is new. Throws Error when an existing file cannot be read.
  const RunProgress& update();

 private:
  void take(const Record& record);
  void take_point(const Point& point);

  std::filesystem::path path_;
  std::unique_ptr<SpoolReader> reader_;
  std::map<std::uint32_t, std::string> metrics_;  // those of interest, by id
  RunProgress progress_;
};

}  // namespace ablate
