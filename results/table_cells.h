#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "results/column_analysis.h"
#include "results/table.h"

namespace ablate {

/// Footnotes in order of first use, each text once.
class Notes {
 public:
  std::size_t add(const std::string& text);
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  std::vector<std::string> texts_;
};

/// One column of the spec with everything its cells are worded from.
struct ColumnView {
  ColumnView(const TableSpec& table_spec, const ColumnData& column_data,
             std::vector<CellData> column_cells, std::size_t baseline_row);

  const TableSpec& spec;
  const ColumnData& column;
  std::vector<CellData> cells;  ///< by row
  std::size_t baseline;
  ColumnAnalysis analysis;
  int decimals = 2;                     ///< of values that have no spread of their own
  bool over_seeds = false;              ///< values vary over seeds: "± sd (n)"
  std::vector<RenderedColumn> columns;  ///< its values first
};

/// The cells of one row under view.columns.
std::vector<Cell> cells_of(const ColumnView& view, std::size_t row, Notes& notes);

}  // namespace ablate
