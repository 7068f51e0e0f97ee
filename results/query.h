#pragma once

#include <cstddef>
#include <filesystem>
#include <ostream>
#include <string>
#include <variant>
#include <vector>

namespace ablate {

/// One value of a result: NULL, a number, a text or raw bytes.
struct RawBytes {
  std::string bytes;
};
using SqlValue = std::variant<std::monostate, std::int64_t, double, std::string, RawBytes>;

struct QueryResult {
  std::vector<std::string> columns;
  std::vector<std::vector<SqlValue>> rows;
};

/// Runs one read-only statement (`ablate query`) on its own connection. The database cannot be
/// changed: the file is opened read-only, `query_only` is set, and an authorizer admits nothing
/// but reading, functions (json_each and json_tree as tables, too) and harmless pragmas (no ATTACH,
/// no temporary tables, no extensions).
/// Throws SpecError for anything else and for SQL errors, naming the known tables when one is
/// missing.
QueryResult query_database(const std::filesystem::path& file, const std::string& sql);

enum class QueryFormat { Table, Csv, Json };

/// Table: aligned columns, numbers to the right. Csv: RFC 4180, NULL empty. Json: a list of
/// objects. Raw bytes are shown as hexadecimal digits.
void write_result(const QueryResult& result, QueryFormat format, std::ostream& out);

}  // namespace ablate
