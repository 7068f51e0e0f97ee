#include "results/query.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>
#include <sqlite3.h>

#include "results/csv.h"
#include "results/number_format.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "results/text_grid.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

bool is_harmless_pragma(std::string_view name) {
  static constexpr std::array<std::string_view, 10> kAllowed = {
      "table_info",  "table_xinfo",      "table_list",   "index_list",  "index_info",
      "index_xinfo", "foreign_key_list", "user_version", "quick_check", "integrity_check"};
  return std::find(kAllowed.begin(), kAllowed.end(), name) != kAllowed.end();
}

int authorize(void*, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return second != nullptr && std::string_view(second) == "load_extension" ? SQLITE_DENY
                                                                               : SQLITE_OK;
    case SQLITE_PRAGMA:
      return first != nullptr && is_harmless_pragma(first) &&
                     (second == nullptr || std::string_view(first) != "user_version")
                 ? SQLITE_OK
                 : SQLITE_DENY;
    default:
      return SQLITE_DENY;
  }
}

/// SQLite declares a table-valued function at its first use, which looks like a change of the
/// schema to an authorizer: those that read JSON are declared before there is one, all others are
/// refused.
void admit_json_tables(SQLite::Database& db) {
  db.exec("SELECT 1 FROM json_each('[]'), json_tree('[]')");
}

SqlValue value_of(const SQLite::Column& column) {
  if (column.isNull()) return std::monostate{};
  if (column.isInteger()) return column.getInt64();
  if (column.isFloat()) return column.getDouble();
  if (column.isBlob()) return RawBytes{column.getString()};
  return column.getString();
}

std::string hexadecimal(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string text_of(const SqlValue& value) {
  struct Text {
    std::string operator()(std::monostate) const { return {}; }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return full_precision(number); }
    std::string operator()(const std::string& text) const { return text; }
    std::string operator()(const RawBytes& raw) const { return hexadecimal(raw.bytes); }
  };
  return std::visit(Text{}, value);
}

nlohmann::json json_of(const SqlValue& value) {
  if (std::holds_alternative<std::monostate>(value)) return nullptr;
  if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
  if (const auto* number = std::get_if<double>(&value)) return *number;
  return text_of(value);
}

bool is_number(const SqlValue& value) {
  return std::holds_alternative<std::int64_t>(value) || std::holds_alternative<double>(value);
}

// A column of numbers alone is set to the right.
std::vector<Align> alignment_of(const QueryResult& result) {
  std::vector<Align> alignment(result.columns.size(), Align::Right);
  for (const auto& row : result.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!is_number(row[i]) && !std::holds_alternative<std::monostate>(row[i]))
        alignment[i] = Align::Left;
    }
  }
  return alignment;
}

void write_table(const QueryResult& result, std::ostream& out) {
  std::vector<std::vector<std::string>> grid = {result.columns};
  for (const auto& row : result.rows) {
    grid.emplace_back();
    for (const SqlValue& value : row) {
      const bool null = std::holds_alternative<std::monostate>(value);
      grid.back().push_back(null ? "NULL" : text_of(value));
    }
  }
  for (const std::string& line : grid_lines(grid, alignment_of(result))) out << line << '\n';
}

void write_json(const QueryResult& result, std::ostream& out) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& row : result.rows) {
    nlohmann::ordered_json object = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < row.size(); ++i)
      object[result.columns[i]] = nlohmann::ordered_json(json_of(row[i]));
    list.push_back(std::move(object));
  }
  out << list.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
}

std::string tables_of(SQLite::Database& db) {
  std::vector<std::string> names;
  SQLite::Statement rows(db,
                         "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND "
                         "name NOT LIKE 'sqlite_%' ORDER BY name");
  while (rows.executeStep()) names.push_back(rows.getColumn(0).getString());
  return join(names);
}

[[noreturn]] void refuse(SQLite::Database& db, const SQLite::Exception& error) {
  const std::string message = error.what();
  if (error.getErrorCode() == SQLITE_AUTH || error.getErrorCode() == SQLITE_READONLY) {
    throw SpecError(
        cat("query: only statements that read are accepted (SELECT, WITH, VALUES, "
            "EXPLAIN): ",
            message));
  }
  std::string hint;
  if (message.find("no such table") != std::string::npos) {
    hint = "; tables and views: " + tables_of(db);
  } else if (message.find("no such column") != std::string::npos) {
    hint = "; `ablate query \"PRAGMA table_info(run)\"` lists the columns of a table";
  }
  throw SpecError(cat("query: ", message, hint));
}

}  // namespace

QueryResult query_database(const std::filesystem::path& file, const std::string& sql) {
  ResultStore store(file, ResultStore::Mode::ReadOnly);
  SQLite::Database& db = store.database();
  admit_json_tables(db);
  sqlite3_set_authorizer(db.getHandle(), authorize, nullptr);
  try {
    const char* rest = nullptr;
    sqlite3_stmt* unused = nullptr;
    const int code = sqlite3_prepare_v2(db.getHandle(), sql.c_str(), -1, &unused, &rest);
    const bool empty = unused == nullptr;
    sqlite3_finalize(unused);
    if (code != SQLITE_OK) throw SQLite::Exception(db.getHandle(), code);
    if (empty) throw SpecError("query: there is no statement; give one SELECT");
    if (std::string_view(rest).find_first_not_of(" \t\r\n;") != std::string_view::npos)
      throw SpecError(cat("query: one statement at a time is accepted; left over: ", rest));
    SQLite::Statement statement(db, sql);
    QueryResult result;
    for (int i = 0; i < statement.getColumnCount(); ++i)
      result.columns.emplace_back(statement.getColumnName(i));
    while (statement.executeStep()) {
      result.rows.emplace_back();
      for (int i = 0; i < statement.getColumnCount(); ++i)
        result.rows.back().push_back(value_of(statement.getColumn(i)));
    }
    return result;
  } catch (const SQLite::Exception& error) {
    if (error.getErrorCode() == SQLITE_CORRUPT) throw_database_error(file, error);
    refuse(db, error);
  }
}

void write_result(const QueryResult& result, QueryFormat format, std::ostream& out) {
  if (format == QueryFormat::Table) return write_table(result, out);
  if (format == QueryFormat::Json) return write_json(result, out);
  out << csv_line(result.columns);
  for (const auto& row : result.rows) {
    std::vector<std::string> fields;
    for (const SqlValue& value : row) fields.push_back(text_of(value));
    out << csv_line(fields);
  }
}

}  // namespace ablate
