#pragma once

#include <filesystem>
#include <ostream>
#include <string>

#include "results/references.h"
#include "results/store.h"
#include "runner/core/value.h"
#include "sweeps/progress.h"

namespace ablate {

/// Which table, and how it is written.
struct TableRequest {
  std::string sweep;  ///< name in the database
  std::string title;
  Value layout;                     ///< `[table]` section
  std::filesystem::path file;       ///< the sweep file; empty where there is none
  std::string format = "terminal";  ///< one of table_formats()
};

/// "terminal", "markdown", "latex", "csv".
const std::vector<std::string>& table_formats();

/// Published numbers at hand: in the folder `references` beside the sweep file (if there is one),
/// and those that come with the program.
std::vector<Publication> known_publications(const std::filesystem::path& sweep_file);

/// Queries, analyses and writes an ablation table: the same for `table` and the end of `sweep`.
/// `style` matters for terminals only. Throws SpecError when the layout does not fit the sweep.
void print_table(ResultStore& store, const TableRequest& request, TerminalStyle style,
                 std::ostream& out);

}  // namespace ablate
