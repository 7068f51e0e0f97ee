#include "runner/core/value.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {

namespace {

using nlohmann::json;

[[noreturn]] void wrong_type(const Value& value, std::string_view expected) {
  throw SpecError(
      cat(value.origin().str(), ": expected ", expected, ", found ", value.type_name()));
}

/// The element of an array of tables whose `name` is the given one.
template <typename ArrayRef>
auto* named_element(ArrayRef& array, std::string_view name) {
  for (auto& element : array) {
    const Value* own_name = element.is_table() ? std::as_const(element).find("name") : nullptr;
    if (own_name != nullptr && own_name->is_string() && own_name->as_string() == name) {
      return &element;
    }
  }
  return static_cast<decltype(&array[0])>(nullptr);
}

std::vector<std::string> element_names(const Value::Array& array) {
  std::vector<std::string> names;
  for (const Value& element : array) {
    const Value* name = element.is_table() ? element.find("name") : nullptr;
    if (name != nullptr && name->is_string()) names.push_back(name->as_string());
  }
  return names;
}

/// The steps of a path, with the short form "tome.r" of "methods.tome.r" written out.
std::vector<std::string> path_steps(const Value& root, std::string_view path) {
  std::vector<std::string> steps = split(path, '.');
  for (const std::string& step : steps) {
    if (step.empty()) throw SpecError(cat("\"", path, "\": a path is names joined by single dots"));
  }
  if (!root.is_table() || root.find(steps[0]) != nullptr) return steps;
  const Value* methods = root.find("methods");
  if (methods != nullptr && methods->is_array() &&
      named_element(methods->as_array(), steps[0]) != nullptr) {
    steps.insert(steps.begin(), "methods");
  }
  return steps;
}

double finite(double number) {
  ABLATE_CHECK(std::isfinite(number), "a setting is ", number);
  return number;
}

template <typename Convert>
json convert_children(const Value& value, const Convert& convert) {
  if (value.is_table()) {
    json object = json::object();
    for (const auto& [key, child] : value.as_table()) object[key] = convert(child);
    return object;
  }
  if (value.is_array()) {
    json array = json::array();
    for (const Value& child : value.as_array()) array.push_back(convert(child));
    return array;
  }
  if (value.is_string()) return value.as_string();
  if (value.is_bool()) return value.as_bool();
  if (value.is_int()) return value.as_int();
  return finite(value.as_double());
}

template <typename Convert>
Value from_children(const json& node, const Origin& origin, const Convert& convert) {
  switch (node.type()) {
    case json::value_t::object: {
      Value::Table table;
      for (const auto& [key, child] : node.items()) table.emplace(key, convert(child));
      return {std::move(table), origin};
    }
    case json::value_t::array: {
      Value::Array array;
      for (const json& child : node) array.push_back(convert(child));
      return {std::move(array), origin};
    }
    case json::value_t::string:
      return {node.get<std::string>(), origin};
    case json::value_t::boolean:
      return {node.get<bool>(), origin};
    case json::value_t::number_unsigned:
      if (node.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) break;
      [[fallthrough]];
    case json::value_t::number_integer:
      return {node.get<std::int64_t>(), origin};
    case json::value_t::number_float:
      return {node.get<double>(), origin};
    default:
      break;
  }
  throw SpecError(cat(origin.str(), ": ", node.dump(), " is no setting; accepted: table, array, ",
                      "string, boolean, 64-bit integer, number"));
}

}  // namespace

std::string Origin::str() const {
  if (file.empty()) return "default";
  return line == 0 ? file : cat(file, ":", line, ":", column);
}

std::string Value::type_name() const {
  if (is_table()) return "a table";
  if (is_array()) return "an array";
  if (is_string()) return "a string";
  if (is_bool()) return "a boolean";
  return is_int() ? "an integer" : "a number";
}

const Value::Table& Value::as_table() const {
  if (!is_table()) wrong_type(*this, "a table");
  return std::get<Table>(data_);
}

Value::Table& Value::as_table() { return const_cast<Table&>(std::as_const(*this).as_table()); }

const Value::Array& Value::as_array() const {
  if (!is_array()) wrong_type(*this, "an array");
  return std::get<Array>(data_);
}

Value::Array& Value::as_array() { return const_cast<Array&>(std::as_const(*this).as_array()); }

const std::string& Value::as_string() const {
  if (!is_string()) wrong_type(*this, "a string");
  return std::get<std::string>(data_);
}

bool Value::as_bool() const {
  if (!is_bool()) wrong_type(*this, "a boolean");
  return std::get<bool>(data_);
}

std::int64_t Value::as_int() const {
  if (!is_int()) wrong_type(*this, "an integer");
  return std::get<std::int64_t>(data_);
}

double Value::as_double() const {
  if (is_int()) return static_cast<double>(std::get<std::int64_t>(data_));
  if (!is_double()) wrong_type(*this, "a number");
  return std::get<double>(data_);
}

const Value* Value::find(std::string_view key) const {
  const Table& table = as_table();
  const auto found = table.find(std::string(key));
  return found == table.end() ? nullptr : &found->second;
}

Value* Value::find(std::string_view key) {
  return const_cast<Value*>(std::as_const(*this).find(key));
}

Value& Value::operator[](const std::string& key) { return as_table()[key]; }

void Value::set_path(std::string_view path, Value value) {
  Value* target = this;
  for (const std::string& step : path_steps(*this, path)) {
    if (target->is_table()) {
      const auto [member, made] = target->as_table().try_emplace(step);
      if (made) member->second.set_origin(value.origin());
      target = &member->second;
    } else if (target->is_array()) {
      Array& array = target->as_array();
      Value* element = named_element(array, step);
      if (element == nullptr) {
        throw SpecError(cat(value.origin().str(), ": \"", path, "\": no element is named \"", step,
                            "\"", suggestion(step, element_names(array))));
      }
      target = element;
    } else {
      throw SpecError(cat(value.origin().str(), ": \"", path, "\": \"", step, "\" would be inside ",
                          target->type_name(), " (", target->origin().str(), "), not a table"));
    }
  }
  *target = std::move(value);
}

const Value* Value::find_path(std::string_view path) const {
  const Value* found = this;
  for (const std::string& step : path_steps(*this, path)) {
    if (found->is_table()) {
      found = found->find(step);
    } else if (found->is_array()) {
      found = named_element(found->as_array(), step);
    } else {
      return nullptr;
    }
    if (found == nullptr) return nullptr;
  }
  return found;
}

bool Value::operator==(const Value& other) const { return data_ == other.data_; }

json Value::to_json() const {
  return convert_children(*this, [](const Value& child) { return child.to_json(); });
}

std::string Value::canonical() const { return to_json().dump(); }

Value Value::from_json(const json& node, const Origin& origin) {
  return from_children(node, origin, [&](const json& child) { return from_json(child, origin); });
}

json Value::to_annotated_json() const {
  json node = {{"value", convert_children(
                             *this, [](const Value& child) { return child.to_annotated_json(); })}};
  if (!origin_.file.empty()) node["at"] = {origin_.file, origin_.line, origin_.column};
  return node;
}

Value Value::from_annotated_json(const json& node) {
  try {
    Origin origin;
    if (node.contains("at")) {
      const json& at = node.at("at");
      origin = {at.at(0).get<std::string>(), at.at(1).get<int>(), at.at(2).get<int>()};
    }
    return from_children(node.at("value"), origin, &Value::from_annotated_json);
  } catch (const json::exception& error) {
    throw SpecError(cat("settings with origins, as JSON: ", error.what()));
  }
}

}  // namespace ablate
