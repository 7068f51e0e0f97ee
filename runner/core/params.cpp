#include "runner/core/params.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string bounds_text(std::int64_t low, std::int64_t high) {
  const bool has_low = low > std::numeric_limits<std::int64_t>::min();
  const bool has_high = high < std::numeric_limits<std::int64_t>::max();
  if (has_low && has_high) return cat("in [", low, ", ", high, "]");
  if (has_low) return cat(">= ", low);
  return has_high ? cat("<= ", high) : "";
}

/// The shortest text that reads back equal: "in [0, 1]" must not stand for 0.9999999.
std::string number_text(double number) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), number).ptr};
}

std::string bounds_text(double low, double high) {
  const bool has_low = low > -kInfinity, has_high = high < kInfinity;
  if (has_low && has_high) return cat("in [", number_text(low), ", ", number_text(high), "]");
  if (has_low) return cat(">= ", number_text(low));
  return has_high ? cat("<= ", number_text(high)) : "";
}

std::string accepted(std::string_view type, const std::string& bounds) {
  return cat(type, bounds.empty() ? "" : " ", bounds);
}

[[noreturn]] void refuse(const Params& params, std::string_view key, const Value& found,
                         const std::string& accepted) {
  params.fail(key, cat("found ", found.canonical(), ", accepted: ", accepted));
}

std::int64_t checked(const Params& params, std::string_view key, const Value& value,
                     std::int64_t low, std::int64_t high) {
  const bool fits = value.is_int() && value.as_int() >= low && value.as_int() <= high;
  if (!fits) refuse(params, key, value, accepted("an integer", bounds_text(low, high)));
  return value.as_int();
}

double checked(const Params& params, std::string_view key, const Value& value, double low,
               double high) {
  const bool is_number = value.is_double() || value.is_int();
  const bool fits = is_number && value.as_double() >= low && value.as_double() <= high;
  if (!fits) refuse(params, key, value, accepted("a number", bounds_text(low, high)));
  return value.as_double();
}

template <typename Number>
Value to_array(const std::vector<Number>& numbers) {
  Value::Array array;
  for (const Number number : numbers) array.emplace_back(number);
  return array;
}

template <typename Number>
std::vector<Number> checked_list(const Params& params, std::string_view key, const Value& value,
                                 std::string_view type, Number low, Number high) {
  if (!value.is_array()) {
    refuse(params, key, value, accepted(cat("a list of ", type), bounds_text(low, high)));
  }
  std::vector<Number> numbers;
  for (const Value& element : value.as_array()) {
    numbers.push_back(checked(params, key, element, low, high));
  }
  return numbers;
}

template <typename Number>
void check_default(std::string_view key, Number value, Number low, Number high) {
  ABLATE_CHECK(low <= value && value <= high, "default of ", key, " is out of its own bounds");
}

}  // namespace

Params::Params(const Value& table, std::string where) : table_(table), name_(std::move(where)) {
  if (!table_.is_table()) {
    throw SpecError(cat(table_.origin().str(), ": ", name_, ": found ", table_.canonical(),
                        ", accepted: a table"));
  }
}

const Value* Params::take(std::string_view key, ParamHelp help) {
  for (const ParamHelp& known : help_) {
    ABLATE_CHECK(known.key != key, name_, ".", key, " is read twice");
  }
  help_.push_back(std::move(help));
  return table_.find(key);
}

void Params::prefer(std::string_view key, std::int64_t default_value) {
  preferred_.emplace_back(key, default_value);
}

std::int64_t Params::integer(std::string_view key, std::int64_t default_value, std::int64_t low,
                             std::int64_t high, std::string_view help) {
  for (const auto& [preferred, value] : preferred_) {
    if (preferred == key) default_value = value;
  }
  check_default(key, default_value, low, high);
  const Value* found = take(key, {std::string(key), "int", Value(default_value).canonical(),
                                  bounds_text(low, high), std::string(help)});
  const std::int64_t value =
      found == nullptr ? default_value : checked(*this, key, *found, low, high);
  record(key, value);
  return value;
}

std::optional<std::int64_t> Params::integer_or(std::string_view key, std::string_view word,
                                               std::optional<std::int64_t> default_value,
                                               std::int64_t low, std::int64_t high,
                                               std::string_view help) {
  const Value open{std::string(word)};
  const Value fallback = default_value ? Value(*default_value) : open;
  const Value* found =
      take(key, {std::string(key), "int or string", fallback.canonical(),
                 cat(bounds_text(low, high), " or ", open.canonical()), std::string(help)});
  const Value& value = found == nullptr ? fallback : *found;
  if (value.is_string() && value.as_string() == word) {
    record(key, open);
    return std::nullopt;
  }
  if (value.is_string()) {
    refuse(*this, key, value,
           accepted("an integer", bounds_text(low, high)) + " or " + open.canonical());
  }
  const std::int64_t number = checked(*this, key, value, low, high);
  record(key, number);
  return number;
}

double Params::number(std::string_view key, double default_value, double low, double high,
                      std::string_view help) {
  check_default(key, default_value, low, high);
  const Value* found = take(key, {std::string(key), "float", Value(default_value).canonical(),
                                  bounds_text(low, high), std::string(help)});
  const double value = found == nullptr ? default_value : checked(*this, key, *found, low, high);
  record(key, value);
  return value;
}

bool Params::boolean(std::string_view key, bool default_value, std::string_view help) {
  const Value* found = take(
      key, {std::string(key), "bool", default_value ? "true" : "false", "", std::string(help)});
  if (found != nullptr && !found->is_bool()) refuse(*this, key, *found, "true or false");
  const bool value = found == nullptr ? default_value : found->as_bool();
  record(key, value);
  return value;
}

std::string Params::text(std::string_view key, std::string_view default_value,
                         std::string_view help) {
  std::string value(default_value);
  const Value* found =
      take(key, {std::string(key), "string", Value(value).canonical(), "", std::string(help)});
  if (found != nullptr && !found->is_string()) refuse(*this, key, *found, "a string");
  if (found != nullptr) value = found->as_string();
  record(key, value);
  return value;
}

std::string Params::choice(std::string_view key, std::string_view default_value,
                           const std::vector<std::string>& allowed, std::string_view help) {
  const auto is_allowed = [&](std::string_view name) {
    return std::find(allowed.begin(), allowed.end(), name) != allowed.end();
  };
  ABLATE_CHECK(is_allowed(default_value), "default of ", key, " is not among its choices");
  std::string value(default_value);
  const std::string bounds = cat("one of: ", join(allowed));
  const Value* found =
      take(key, {std::string(key), "string", Value(value).canonical(), bounds, std::string(help)});
  if (found != nullptr) {
    if (!found->is_string()) refuse(*this, key, *found, bounds);
    value = found->as_string();
    if (!is_allowed(value)) {
      const std::string near = nearest_name(value, allowed);
      refuse(*this, key, *found,
             near.empty() ? bounds : cat(bounds, " (did you mean \"", near, "\"?)"));
    }
  }
  record(key, value);
  return value;
}

std::vector<std::int64_t> Params::integers(std::string_view key,
                                           std::vector<std::int64_t> default_value,
                                           std::int64_t low, std::int64_t high,
                                           std::string_view help) {
  for (const std::int64_t element : default_value) check_default(key, element, low, high);
  const Value* found =
      take(key, {std::string(key), "list of int", to_array(default_value).canonical(),
                 bounds_text(low, high), std::string(help)});
  if (found != nullptr) {
    default_value = checked_list(*this, key, *found, "integers", low, high);
  }
  record(key, to_array(default_value));
  return default_value;
}

std::vector<double> Params::numbers(std::string_view key, std::vector<double> default_value,
                                    double low, double high, std::string_view help) {
  for (const double element : default_value) check_default(key, element, low, high);
  const Value* found =
      take(key, {std::string(key), "list of float", to_array(default_value).canonical(),
                 bounds_text(low, high), std::string(help)});
  if (found != nullptr) default_value = checked_list(*this, key, *found, "numbers", low, high);
  record(key, to_array(default_value));
  return default_value;
}

const Value& Params::take_required(std::string_view key, ParamHelp help) {
  const std::string wanted = cat(help.type, help.bounds.empty() ? "" : " ", help.bounds);
  const std::string meaning = help.help;
  const Value* found = take(key, std::move(help));
  if (found == nullptr) fail(key, cat("is required: ", meaning, "; accepted: ", wanted));
  return *found;
}

std::int64_t Params::required_integer(std::string_view key, std::int64_t low, std::int64_t high,
                                      std::string_view help) {
  const Value& found =
      take_required(key, {std::string(key), "int", "", bounds_text(low, high), std::string(help)});
  const std::int64_t value = checked(*this, key, found, low, high);
  record(key, value);
  return value;
}

double Params::required_number(std::string_view key, double low, double high,
                               std::string_view help) {
  const Value& found = take_required(
      key, {std::string(key), "float", "", bounds_text(low, high), std::string(help)});
  const double value = checked(*this, key, found, low, high);
  record(key, value);
  return value;
}

std::string Params::required_text(std::string_view key, std::string_view help) {
  const Value& found = take_required(key, {std::string(key), "string", "", "", std::string(help)});
  if (!found.is_string()) refuse(*this, key, found, "a string");
  record(key, found.as_string());
  return found.as_string();
}

bool Params::has(std::string_view key) const { return table_.find(key) != nullptr; }

const Value* Params::raw(std::string_view key, std::string_view help) {
  return take(key, {std::string(key), "table", "", "", std::string(help)});
}

void Params::record(std::string_view key, Value value) {
  resolved_[std::string(key)] = std::move(value);
}

void Params::finish() const {
  std::vector<std::string> known;
  for (const ParamHelp& entry : help_) known.push_back(entry.key);
  for (const auto& [key, value] : table_.as_table()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail(key, cat("unknown key", suggestion(key, known)));
    }
  }
}

std::string Params::where(std::string_view key) const {
  const Value* found = key.empty() ? nullptr : table_.find(key);
  return (found == nullptr ? table_ : *found).origin().str();
}

void Params::fail(std::string_view key, const std::string& message) const {
  throw SpecError(cat(where(key), ": ", name_, key.empty() ? "" : ".", key, ": ", message));
}

}  // namespace ablate
