#include "results/references.h"

#include <algorithm>
#include <vector>

#include "results/sqlite.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const fs::path& place) {
  if (!fs::is_directory(place)) return {place};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(place))
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

int load_row(SQLite::Database& db, const std::string& source, const Value& table) {
  Params row(table, "row");
  const std::string model = row.required_text("model", "name of the model");
  const std::string method = row.required_text("method", "name of the method, or \"none\"");
  const std::string dataset = row.required_text("dataset", "name of the data set");
  const std::string setting = row.text("setting", "", "what else tells rows apart: r = 13");
  const std::string note = row.text("note", "", "hardware, table of the paper");
  const Value* values = row.raw("values", "column name = number");
  if (values == nullptr) row.fail("values", "missing; accepted: values = { top1 = 79.8 }");
  row.finish();
  int n = 0;
  for (const auto& [metric, value] : values->as_table()) {
    execute(db, "INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?, ?, ?, ?, ?)", source, model,
            method, setting, dataset, metric, value.as_double(), note);
    ++n;
  }
  return n;
}

int load_file(SQLite::Database& db, const fs::path& file) {
  const Value content = read_toml(file);
  Params params(content, "references");
  const std::string source = params.required_text("source", "the publication, as tables name it");
  const Value* rows = params.raw("row", "one table a published row");
  params.finish();
  execute(db, "DELETE FROM reference WHERE source = ?", source);
  int n = 0;
  if (rows != nullptr)
    for (const Value& row : rows->as_array()) n += load_row(db, source, row);
  return n;
}

}  // namespace

int load_references(ResultStore& store, const fs::path& place) {
  return with_database_errors(store.file(), [&] {
    SQLite::Transaction transaction(store.database(), SQLite::TransactionBehavior::IMMEDIATE);
    int n = 0;
    for (const fs::path& file : files_in(place)) n += load_file(store.database(), file);
    transaction.commit();
    return n;
  });
}

}  // namespace ablate
