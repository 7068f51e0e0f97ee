#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <SQLiteCpp/SQLiteCpp.h>

namespace ablate {

/// Bytes to be bound as a BLOB instead of TEXT.
struct Blob {
  std::string_view bytes;
};

/// 'text' as an SQL literal.
inline std::string sql_literal(std::string_view text) {
  std::string sql = "'";
  for (const char c : text) {
    if (c == '\'') sql += c;
    sql += c;
  }
  return sql + "'";
}

/// Throws Error for an SQLite failure, with the file and the way out: rebuild for a damaged
/// database, free space for a full disk, and so on.
[[noreturn]] void throw_database_error(const std::filesystem::path& file,
                                       const SQLite::Exception& error);

/// Runs `work`, translating SQLite failures.
template <typename Work>
decltype(auto) with_database_errors(const std::filesystem::path& file, Work&& work) {
  try {
    return work();
  } catch (const SQLite::Exception& error) {
    throw_database_error(file, error);
  }
}

inline void bind_value(SQLite::Statement& s, int i, std::nullopt_t) { s.bind(i); }
inline void bind_value(SQLite::Statement& s, int i, double value) { s.bind(i, value); }
inline void bind_value(SQLite::Statement& s, int i, Blob value) {
  s.bind(i, value.bytes.data(), static_cast<int>(value.bytes.size()));
}
inline void bind_value(SQLite::Statement& s, int i, std::string_view value) {
  s.bind(i, std::string(value));
}
template <typename T>
requires std::is_integral_v<T>
void bind_value(SQLite::Statement& s, int i, T value) {
  s.bind(i, static_cast<std::int64_t>(value));
}
template <typename T>
void bind_value(SQLite::Statement& s, int i, const std::optional<T>& value) {
  value ? bind_value(s, i, *value) : s.bind(i);
}

/// Resets a statement and binds all its parameters in order.
template <typename... Args>
SQLite::Statement& rebind(SQLite::Statement& statement, const Args&... args) {
  statement.reset();
  int i = 0;
  (bind_value(statement, ++i, args), ...);
  return statement;
}

/// A new statement with its parameters bound.
template <typename... Args>
SQLite::Statement prepare(SQLite::Database& db, const std::string& sql, const Args&... args) {
  SQLite::Statement statement(db, sql);
  int i = 0;
  (bind_value(statement, ++i, args), ...);
  return statement;
}

/// Runs one statement without result; returns the number of rows it changed.
template <typename... Args>
int execute(SQLite::Database& db, const std::string& sql, const Args&... args) {
  return prepare(db, sql, args...).exec();
}

/// First column of the first row as an integer, or nothing without a row or with NULL.
template <typename... Args>
std::optional<std::int64_t> query_integer(SQLite::Database& db, const std::string& sql,
                                          const Args&... args) {
  SQLite::Statement statement = prepare(db, sql, args...);
  if (!statement.executeStep() || statement.isColumnNull(0)) return std::nullopt;
  return statement.getColumn(0).getInt64();
}

/// The same as text.
template <typename... Args>
std::optional<std::string> query_text(SQLite::Database& db, const std::string& sql,
                                      const Args&... args) {
  SQLite::Statement statement = prepare(db, sql, args...);
  if (!statement.executeStep() || statement.isColumnNull(0)) return std::nullopt;
  return statement.getColumn(0).getString();
}

/// A column as an optional: NULL is nothing.
inline std::optional<std::int64_t> integer_or_null(const SQLite::Column& column) {
  if (column.isNull()) return std::nullopt;
  return column.getInt64();
}
inline std::optional<double> number_or_null(const SQLite::Column& column) {
  if (column.isNull()) return std::nullopt;
  return column.getDouble();
}

}  // namespace ablate
