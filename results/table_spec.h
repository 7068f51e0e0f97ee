#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "results/power.h"
#include "runner/core/params.h"

namespace ablate {

/// How p values of one column are adjusted for the number of its rows.
enum class Correction : std::uint8_t { Holm, None };

/// Published rows to print beside ours: those of one source that fit.
struct ReferenceChoice {
  std::string source;
  std::string model, method, dataset;  ///< empty: any
  Origin origin;
};

/// The `[table]` section of a sweep file: what is printed and how rows are compared.
struct TableSpec {
  TableSpec() = default;
  /// Reads its keys from `params`; the caller checks for unknown ones (params.finish()). Throws
  /// SpecError on wrong types, values out of range and columns named twice.
  explicit TableSpec(Params& params);

  std::vector<std::string> columns = {"top1", "params_m", "gmacs"};  ///< metric or bench names
  std::string baseline;  ///< label of the row all others are compared with; empty: the first row
  TestKind test = TestKind::Blocked;
  Correction correction = Correction::Holm;
  double alpha = 0.05;  ///< intervals have level 1 - alpha
  double power = 0.8;   ///< of the minimum detectable difference and of "N more seeds"
  double margin = 0.5;  ///< of "no worse" and "equal", for columns in percent: points
  std::map<std::string, double> margins;  ///< by column, in its unit; 0 makes no claim there
  std::vector<ReferenceChoice> references;

  /// The margin of a column: its own one, or `margin` if its unit is percent; none: no claims.
  std::optional<double> margin_of(std::string_view column, std::string_view unit) const;
  /// The level of the strictest of `comparisons` tests under the correction.
  double strictest_alpha(std::size_t comparisons) const;
};

/// TableSpec of a whole `[table]` section; an unknown key is a SpecError too.
TableSpec parse_table_spec(const Value& table);

/// Its keys with defaults, bounds and meaning.
std::vector<ParamHelp> table_settings();

}  // namespace ablate
