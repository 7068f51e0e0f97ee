#pragma once

#include <string>
#include <vector>

#include "results/table_cells.h"

namespace ablate {

/// Sentences that say how a table was made: statistics, split and final rule, protocols,
/// toolchains, papers.
std::vector<std::string> caption_of(const TableSpec& spec, const TableData& data,
                                    const std::vector<ColumnView>& views, std::size_t baseline);

/// Per tested column: the minimum detectable difference, and what further seeds would decide.
std::vector<std::string> findings_of(const TableSpec& spec, const TableData& data,
                                     const std::vector<ColumnView>& views);

/// Footnotes of a whole row: images seen against the baseline, mixed toolchains and the like, and
/// those of its variant.
std::vector<std::string> row_notes(const RowData& row, const RowData& baseline);

/// Numbers about a whole column for machine-readable output.
std::vector<Statistic> column_statistics(const ColumnView& view);

}  // namespace ablate
