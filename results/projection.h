#pragma once

#include <cstdint>
#include <string_view>

#include "results/series_store.h"
#include "results/store.h"

namespace ablate {

/// Brings the row of `final` for a reduced series up to date: the value the run declared final,
/// else what the metric's rule makes of the series. In a transaction of the caller.
void project_final(SQLite::Database& database, SeriesStore& series, std::int64_t run,
                   std::int64_t metric);

/// Packs every series of a run: call when the run has ended for good.
void seal_run(SQLite::Database& database, SeriesStore& series, std::int64_t run);

/// Whether a run in this state gets no further points unless it is asked to run again.
bool is_terminal(std::string_view run_state);

struct ReindexReport {
  std::int64_t series = 0, finals = 0, sealed_runs = 0;
};

/// `ablate reindex`: rebuilds all projections from samples and chunks and packs what has ended.
/// Nobody else may write meanwhile.
ReindexReport reindex(ResultStore& store);

}  // namespace ablate
