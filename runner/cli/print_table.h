#pragma once

#include <ostream>
#include <string>

#include "results/store.h"
#include "runner/core/value.h"
#include "sweeps/progress.h"

namespace ablate {

/// Which table, and how it is written.
struct TableRequest {
  std::string sweep;  ///< name in the database
  std::string title;
  Value layout;                     ///< `[table]` section
  std::string format = "terminal";  ///< one of table_formats()
};

/// "terminal", "markdown", "latex", "csv".
const std::vector<std::string>& table_formats();

/// Queries, analyses and writes an ablation table: the same for `table` and the end of `sweep`.
/// `style` matters for terminals only. Throws SpecError when the layout does not fit the sweep.
void print_table(ResultStore& store, const TableRequest& request, TerminalStyle style,
                 std::ostream& out);

}  // namespace ablate
