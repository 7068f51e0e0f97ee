// The only file that sees toml++, whose header is slow to compile.
#include <algorithm>
#include <cmath>

#include <toml++/toml.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/value.h"

namespace ablate {

namespace {

constexpr const char* kCommandLine = "command line";

Origin origin_of(const toml::source_region& source, const std::string& name) {
  return {name, static_cast<int>(source.begin.line), static_cast<int>(source.begin.column)};
}

Value convert(const toml::node& node, const Origin& origin);

Value convert_table(const toml::table& table, const Origin& origin) {
  Value::Table members;
  for (const auto& [key, child] : table) {
    members.emplace(std::string(key.str()), convert(child, origin_of(key.source(), origin.file)));
  }
  return {std::move(members), origin};
}

Value convert_array(const toml::array& array, const Origin& origin) {
  Value::Array elements;
  for (const toml::node& child : array) {
    elements.push_back(convert(child, origin_of(child.source(), origin.file)));
  }
  return {std::move(elements), origin};
}

Value convert(const toml::node& node, const Origin& origin) {
  if (const auto* table = node.as_table()) return convert_table(*table, origin);
  if (const auto* array = node.as_array()) return convert_array(*array, origin);
  if (const auto* text = node.as_string()) return {text->get(), origin};
  if (const auto* boolean = node.as_boolean()) return {boolean->get(), origin};
  if (const auto* integer = node.as_integer()) return {integer->get(), origin};
  if (const auto* number = node.as_floating_point()) {
    if (std::isfinite(number->get())) return {number->get(), origin};
    throw SpecError(
        cat(origin.str(), ": ", number->get(), " is no setting; accepted: finite numbers"));
  }
  throw SpecError(cat(origin.str(), ": dates and times are no settings; put the text into quotes"));
}

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

bool is_bare_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') ||
           std::string_view("_./:+@%~-").find(letter) != std::string_view::npos;
  });
}

Value parse_right_side(std::string_view assignment, std::string_view text) {
  const Origin origin{kCommandLine, 0, 0};
  try {
    const toml::table table = toml::parse(cat("value = ", text));
    if (table.size() == 1) return convert(*table.get("value"), origin);
  } catch (const toml::parse_error&) {
    if (is_bare_word(text)) return {std::string(text), origin};
  }
  throw SpecError(cat(kCommandLine, ": \"", assignment,
                      "\": the right side is neither a TOML value nor a bare word; a text with "
                      "other characters needs quotes, as in 'key=\"a text\"'"));
}

/// Inside an override all parts share one origin: a column of the made-up line helps nobody.
void set_origins(Value& value, const Origin& origin) {
  value.set_origin(origin);
  if (value.is_table()) {
    for (auto& [key, child] : value.as_table()) set_origins(child, origin);
  } else if (value.is_array()) {
    for (Value& child : value.as_array()) set_origins(child, origin);
  }
}

}  // namespace

Value parse_toml(std::string_view text, const std::string& name) {
  try {
    return convert_table(toml::parse(text, name), {name, 1, 1});
  } catch (const toml::parse_error& error) {
    throw SpecError(cat(origin_of(error.source(), name).str(), ": ", error.description()));
  }
}

Value read_toml(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const Error& error) {
    throw SpecError(error.what());
  }
  return parse_toml(text, file.string());
}

std::pair<std::string, Value> parse_override(std::string_view assignment) {
  const auto equals = assignment.find('=');
  const std::string key(trimmed(assignment.substr(0, equals)));
  if (equals == std::string_view::npos || key.empty()) {
    throw SpecError(cat(kCommandLine, ": \"", assignment, "\": expected dotted.key=value"));
  }
  Value value = parse_right_side(assignment, trimmed(assignment.substr(equals + 1)));
  set_origins(value, {kCommandLine, 0, 0});
  return {key, std::move(value)};
}

}  // namespace ablate
