#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runner/core/value.h"

namespace ablate {

/// One setting as `describe` and `list` show it.
struct ParamHelp {
  std::string key;
  std::string type;           ///< "int", "float", "bool", "string", "list of int", "table"
  std::string default_value;  ///< as TOML text; empty when required
  std::string bounds;         ///< "in [0, 1]", "one of: a, b"; may be empty
  std::string help;
};

/// Read-once typed view of one table of a spec. Every read names default, bounds and help, so the
/// reads are the documentation; `finish()` throws on any key nobody read. Reading also records the
/// resolved value (default included): `resolved()` is what identities are made of.
///
/// All readers throw SpecError "file:line:column: what, accepted: ..." on a wrong type or a value
/// out of bounds.
class Params {
 public:
  /// `where` names the table in messages ("methods.tome"). The table must outlive the view.
  Params(const Value& table, std::string where);

  std::int64_t integer(std::string_view key, std::int64_t default_value, std::int64_t low,
                       std::int64_t high, std::string_view help);
  /// An integer, or a word that leaves it open: nothing then.
  std::optional<std::int64_t> integer_or(std::string_view key, std::string_view word,
                                         std::optional<std::int64_t> default_value,
                                         std::int64_t low, std::int64_t high,
                                         std::string_view help);
  double number(std::string_view key, double default_value, double low, double high,
                std::string_view help);
  bool boolean(std::string_view key, bool default_value, std::string_view help);
  std::string text(std::string_view key, std::string_view default_value, std::string_view help);
  /// A string out of a fixed set.
  std::string choice(std::string_view key, std::string_view default_value,
                     const std::vector<std::string>& allowed, std::string_view help);
  std::vector<std::int64_t> integers(std::string_view key, std::vector<std::int64_t> default_value,
                                     std::int64_t low, std::int64_t high, std::string_view help);
  std::vector<double> numbers(std::string_view key, std::vector<double> default_value, double low,
                              double high, std::string_view help);

  // Required forms: a missing key is an error that shows the help.
  std::int64_t required_integer(std::string_view key, std::int64_t low, std::int64_t high,
                                std::string_view help);
  double required_number(std::string_view key, double low, double high, std::string_view help);
  std::string required_text(std::string_view key, std::string_view help);

  /// Another default for an integer that is read later: that of the reader loses.
  void prefer(std::string_view key, std::int64_t default_value);

  /// Whether the table has the key (reading it or not).
  bool has(std::string_view key) const;
  /// The raw value of a nested part, marked as read and recorded by whoever resolves it; nullptr
  /// when missing.
  const Value* raw(std::string_view key, std::string_view help);
  /// Puts a resolved nested part (or a derived setting) under `key`.
  void record(std::string_view key, Value value);

  /// Throws SpecError naming the first key nobody read, its place and the nearest known key.
  void finish() const;

  /// Everything read, defaults included.
  const Value& resolved() const { return resolved_; }
  /// The help of everything read, in order of reading.
  const std::vector<ParamHelp>& help() const { return help_; }
  /// "file:line:column" of a key, or of the table.
  std::string where(std::string_view key = {}) const;
  /// A SpecError about `key`: "file:line:column: methods.tome.r: message".
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;

 private:
  const Value* take(std::string_view key, ParamHelp help);
  const Value& take_required(std::string_view key, ParamHelp help);

  const Value& table_;
  std::string name_;
  std::vector<std::pair<std::string, std::int64_t>> preferred_;
  Value resolved_;
  std::vector<ParamHelp> help_;
};

}  // namespace ablate
