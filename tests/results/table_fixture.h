#pragma once

#include <string>
#include <vector>

#include "results/table_data.h"

namespace ablate {

inline CellData cell(const std::vector<double>& values) {
  CellData result;
  for (std::size_t seed = 0; seed < values.size(); ++seed) {
    result.values.push_back({static_cast<std::int64_t>(seed), values[seed]});
  }
  return result;
}

inline ColumnData top1_column() {
  return {"top1", "%", Better::Higher, ColumnKind::Deterministic, false, "test", "last"};
}

/// One column, one row a list of values over seeds 0, 1, ...
inline TableData table_of(const ColumnData& column,
                          const std::vector<std::pair<std::string, CellData>>& rows) {
  TableData data;
  data.columns = {column};
  for (const auto& [label, values] : rows) data.rows.push_back({label, {values}, {}, {}, {}, {}});
  return data;
}

/// The randomised blocks of Montgomery's vascular graft (example 4.1) as a table of six seeds.
inline TableData graft_table() {
  return table_of({"yield", "", Better::Higher, ColumnKind::Deterministic, false, "test", "last"},
                  {{"8500", cell({90.3, 89.2, 98.2, 93.9, 87.4, 97.9})},
                   {"8700", cell({92.5, 89.5, 90.6, 94.7, 87.0, 95.8})},
                   {"8900", cell({85.5, 90.8, 89.6, 86.2, 88.0, 93.4})},
                   {"9100", cell({82.5, 89.5, 85.6, 87.4, 78.9, 90.7})}});
}

}  // namespace ablate
