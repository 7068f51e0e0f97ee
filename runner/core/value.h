#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace ablate {

/// Where a value was written, for messages. An empty file means "a default".
struct Origin {
  std::string file;
  int line = 0;
  int column = 0;

  /// "sweep.toml:12:3", "command line", or "default".
  std::string str() const;
};

/// A tree of settings with the place each value came from: what a TOML file, a `key=value` override
/// and a resolved spec all are. Value type.
class Value {
 public:
  using Array = std::vector<Value>;
  using Table = std::map<std::string, Value>;

  Value() : data_(Table{}) {}
  Value(bool value, Origin origin = {}) : data_(value), origin_(std::move(origin)) {}
  Value(std::int64_t value, Origin origin = {}) : data_(value), origin_(std::move(origin)) {}
  Value(int value, Origin origin = {}) : Value(std::int64_t{value}, std::move(origin)) {}
  Value(double value, Origin origin = {}) : data_(value), origin_(std::move(origin)) {}
  Value(std::string value, Origin origin = {})
      : data_(std::move(value)), origin_(std::move(origin)) {}
  Value(const char* value, Origin origin = {}) : Value(std::string(value), std::move(origin)) {}
  Value(Array value, Origin origin = {}) : data_(std::move(value)), origin_(std::move(origin)) {}
  Value(Table value, Origin origin = {}) : data_(std::move(value)), origin_(std::move(origin)) {}

  bool is_table() const { return std::holds_alternative<Table>(data_); }
  bool is_array() const { return std::holds_alternative<Array>(data_); }
  bool is_string() const { return std::holds_alternative<std::string>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<std::int64_t>(data_); }
  bool is_double() const { return std::holds_alternative<double>(data_); }

  /// "a table", "an integer", ...: for messages.
  std::string type_name() const;
  const Origin& origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = std::move(origin); }

  // Typed access; each throws SpecError naming the origin when the type is another. as_double()
  // also takes an integer.
  const Table& as_table() const;
  Table& as_table();
  const Array& as_array() const;
  Array& as_array();
  const std::string& as_string() const;
  bool as_bool() const;
  std::int64_t as_int() const;
  double as_double() const;

  /// The member of a table, or nullptr.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  /// The member of a table, made (as an empty table) when missing.
  Value& operator[](const std::string& key);

  /// Sets the value at a dotted path ("optimizer.lr"), making tables on the way. A path through the
  /// array `methods` names the element by its `name`: "methods.tome.r", and "tome.r" is short for
  /// it when no top-level key `tome` exists. Throws SpecError when a step is no table.
  void set_path(std::string_view path, Value value);
  /// The value at such a path, or nullptr.
  const Value* find_path(std::string_view path) const;

  /// Equal content; origins do not count.
  bool operator==(const Value& other) const;

  /// Plain JSON without origins. A number that is not finite is a BugError: no reader of settings
  /// lets one in.
  nlohmann::json to_json() const;
  /// The text that identities are hashes of: JSON without spaces, keys sorted, integers as such,
  /// other numbers in their shortest form that reads back equal (an integral one as `1.0`).
  std::string canonical() const;
  static Value from_json(const nlohmann::json& json, const Origin& origin = {});
  /// JSON with origins, for passing a draft between our two programs.
  nlohmann::json to_annotated_json() const;
  static Value from_annotated_json(const nlohmann::json& json);

 private:
  std::variant<bool, std::int64_t, double, std::string, Array, Table> data_;
  Origin origin_;
};

/// Reads a TOML file or text. Throws SpecError with file:line:column on a syntax error or when the
/// file cannot be read. Dates, times and numbers that are not finite are refused. The origin of a
/// table's member is the place of its key, that of an array's element its own.
Value read_toml(const std::filesystem::path& file);
Value parse_toml(std::string_view text, const std::string& name);

/// Parses one `dotted.key=value` of a command line; the right side is TOML, and a bare word
/// (letters, digits, `_ . / : + @ % ~ -`) that is no TOML value counts as a string. Throws
/// SpecError.
std::pair<std::string, Value> parse_override(std::string_view assignment);

}  // namespace ablate
