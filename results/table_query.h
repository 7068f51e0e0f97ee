#pragma once

#include <string>

#include "results/references.h"
#include "results/store.h"
#include "results/table_data.h"
#include "results/table_spec.h"

namespace ablate {

/// Everything a table of one sweep is built from, out of the database. Columns are
/// - names of metrics, as in table `final` ("top1", "params_m", "gmacs");
/// - figures of bench jobs: images_per_s, p50_ms, p99_ms, peak_mem_mib, joules_per_image, max_batch
///   (within the byte budget of the job), speedup (against its baseline), under the newest protocol
///   that has been run; "train_" before them takes those of protocols that begin with "train";
///   "@protocol" behind them names one;
/// - wall_h and gpu_h: time of all attempts of a run, and that time for each of its ranks.
/// `publications` holds what spec.references names (see find_publications). Throws SpecError for an
/// unknown sweep, and for an unknown column once a run is done.
TableData query_table(ResultStore& store, const std::string& sweep, const TableSpec& spec,
                      const std::string& title = "",
                      const std::vector<Publication>& publications = {});

}  // namespace ablate
