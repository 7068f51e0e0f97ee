#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "results/chunk.h"
#include "results/store.h"

namespace ablate {

/// The points of one series by increasing step (rank -1: reduced over ranks); empty when there is
/// none. Missing numbers are NaN.
std::vector<CurvePoint> read_curve(ResultStore& store, const std::string& run_uid,
                                   const std::string& metric, int rank = -1);

struct SeriesInfo {
  std::string metric, unit;
  int rank = -1;
  std::int64_t points = 0;
};
/// All series of a run by metric and rank.
std::vector<SeriesInfo> list_series(ResultStore& store, const std::string& run_uid);

/// Writes curves of a run as CSV "metric,rank,step,value" with all digits; all of its metrics when
/// none is named. Throws SpecError for a metric the run does not have.
void export_csv(ResultStore& store, const std::string& run_uid,
                const std::vector<std::string>& metrics, std::ostream& out);

}  // namespace ablate
