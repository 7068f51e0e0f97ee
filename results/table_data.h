#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "results/record.h"

namespace ablate {

struct SeedValue {
  std::int64_t seed = 0;
  double value = 0;
};

/// One variant in one column. Values that are not finite count as diverged.
struct CellData {
  std::vector<SeedValue> values;  ///< of the runs that are done
  std::size_t diverged = 0;       ///< seeds that ended without a value
  std::size_t missing = 0;        ///< seeds planned, but not done yet
  std::string protocol;           ///< Bench: name, device, dtype, batch: whatever must not be mixed
  std::optional<double> spread;   ///< Bench: relative spread over repetitions (0.01 = 1 %)
  bool shared_device = false;     ///< Timing: a run had company on its device
  std::string structure;          ///< Bench: that all values were measured of; empty: of several
  /// Bench: of the values over those of the structure `against`, measured in turns with them; for
  /// every value, or empty.
  std::vector<double> ratios;
  std::string against;
};

struct RowData {
  std::string label;
  std::vector<CellData> cells;        ///< by column
  std::optional<double> images_seen;  ///< over the whole lineage, per run
  // Facts of the attempts of the row's runs, each named once; more than one is footnoted.
  std::vector<std::string> toolchains;
  std::vector<std::int64_t> world_sizes;
  std::vector<std::string> precisions;
  std::vector<std::string> notes{};  ///< footnotes that the variant brings
};

enum class ColumnKind : std::uint8_t {
  Deterministic,  ///< the same bits for the same spec: differences are tested over seeds
  Timing,         ///< wall time of training runs: relative change, no test
  Bench,          ///< measured alone under a protocol, one figure a structure
};

struct ColumnData {
  std::string name;
  std::string unit;  ///< "%", "ms", ...; may be empty
  Better better = Better::Neither;
  ColumnKind kind = ColumnKind::Deterministic;
  bool count = false;        ///< parameters, MACs: a property of the structure, never tested
  std::string split;         ///< "test", "holdout", "train"; empty for costs
  std::string final_rule;    ///< "last", "max", ...; empty for costs
  std::string meaning = {};  ///< for the caption, where the name does not say it all
};

/// A row of numbers printed in a paper, kept apart from ours.
struct PaperRow {
  std::string label;
  std::string source;
  std::vector<std::optional<double>> values;  ///< by column
  std::string note;
};

/// Everything a table is rendered from: what the one query of the store yields.
struct TableData {
  std::string title;
  std::vector<ColumnData> columns;
  std::vector<RowData> rows;
  std::vector<PaperRow> papers;
  std::string database_hash;
  std::string sql;
};

}  // namespace ablate
