#include "results/references.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "results/sqlite.h"
#include "runner/core/add_once.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

PublishedRow read_row(const Value& table, const std::string& common_note) {
  Params params(table, "row");
  PublishedRow row;
  row.model = params.required_text("model", "name of the model");
  row.method = params.required_text("method", "name of the method, or \"none\"");
  row.dataset = params.required_text("dataset", "name of the data set");
  row.setting = params.text("setting", "", "what else tells rows apart: r = 13");
  row.note = params.text("note", common_note, "hardware, table of the paper");
  const Value* values = params.raw("values", "column name = number");
  if (values == nullptr || !values->is_table() || values->as_table().empty()) {
    params.fail("values", "is required; accepted: a table such as { top1 = 79.8 }");
  }
  params.finish();
  for (const auto& [column, value] : values->as_table()) row.values[column] = value.as_double();
  return row;
}

auto key_of(const PublishedRow& row) {
  return std::tie(row.model, row.method, row.setting, row.dataset);
}

const Publication* find(const std::vector<Publication>& publications, const std::string& source) {
  const auto found = std::find_if(publications.begin(), publications.end(),
                                  [&](const Publication& p) { return p.source == source; });
  return found == publications.end() ? nullptr : &*found;
}

Publication stored_publication(SQLite::Database& db, const std::string& source) {
  Publication publication{source, {}};
  auto rows = prepare(db,
                      "SELECT model, method, setting, dataset, coalesce(note, ''), metric, value "
                      "FROM reference WHERE source = ? AND value IS NOT NULL "
                      "ORDER BY model, method, setting, dataset",
                      source);
  while (rows.executeStep()) {
    const auto text = [&](int i) { return rows.getColumn(i).getString(); };
    PublishedRow row{text(0), text(1), text(2), text(3), text(4), {}};
    if (publication.rows.empty() || key_of(publication.rows.back()) != key_of(row))
      publication.rows.push_back(std::move(row));
    publication.rows.back().values[text(5)] = rows.getColumn(6).getDouble();
  }
  return publication;
}

std::vector<std::string> stored_sources(SQLite::Database& db) {
  std::vector<std::string> sources;
  auto rows = prepare(db, "SELECT DISTINCT source FROM reference ORDER BY source");
  while (rows.executeStep()) sources.push_back(rows.getColumn(0).getString());
  return sources;
}

[[noreturn]] void unknown_source(const ReferenceChoice& choice,
                                 const std::vector<Publication>& known, ResultStore* store) {
  std::set<std::string> sources;
  for (const Publication& publication : known) sources.insert(publication.source);
  if (store != nullptr) {
    for (std::string& source : stored_sources(store->database())) sources.insert(std::move(source));
  }
  const std::vector<std::string> names(sources.begin(), sources.end());
  throw SpecError(cat(choice.origin.str(), ": table.references: no publication \"", choice.source,
                      "\"", suggestion(choice.source, names),
                      "; files with others belong into the folder references beside the sweep "
                      "file"));
}

bool lets_through(const ReferenceChoice& choice, const PublishedRow& row) {
  const auto fits = [](const std::string& wanted, const std::string& is) {
    return wanted.empty() || wanted == is;
  };
  return fits(choice.model, row.model) && fits(choice.method, row.method) &&
         fits(choice.dataset, row.dataset);
}

void check_fits(const ReferenceChoice& choice, const Publication& publication) {
  const auto fits = [&](const PublishedRow& row) { return lets_through(choice, row); };
  if (std::any_of(publication.rows.begin(), publication.rows.end(), fits)) return;
  std::vector<std::string> rows;
  for (const PublishedRow& row : publication.rows) {
    add_once(rows, cat(row.model, " / ", row.method, " / ", row.dataset));
  }
  throw SpecError(cat(choice.origin.str(), ": table.references: no row of \"", choice.source,
                      "\" fits; model / method / dataset of its rows: ", join(rows, "; ")));
}

/// "DeiT-S ToMe, r = 13 (Bolya 2023, imagenet)".
std::string label_of(const PublishedRow& row, const std::string& source) {
  std::string label = row.model;
  if (row.method != "none") label += " " + row.method;
  if (!row.setting.empty()) label += ", " + row.setting;
  return cat(label, " (", source, ", ", row.dataset, ")");
}

}  // namespace

Publication read_publication(const fs::path& file) {
  const Value content = read_toml(file);
  Params params(content, "publication");
  Publication publication;
  publication.source = params.required_text("source", "the publication, as tables name it");
  const std::string note = params.text("note", "", "where the numbers are printed; of all rows");
  const Value* rows = params.raw("row", "one table a published row");
  params.finish();
  if (rows == nullptr) return publication;
  for (const Value& table : rows->as_array()) {
    PublishedRow row = read_row(table, note);
    for (const PublishedRow& other : publication.rows) {
      if (key_of(other) != key_of(row)) continue;
      throw SpecError(cat(table.origin().str(),
                          ": row: stands there twice; model, method, setting and dataset together "
                          "must differ"));
    }
    publication.rows.push_back(std::move(row));
  }
  return publication;
}

std::vector<Publication> read_publications(const std::vector<fs::path>& folders) {
  std::vector<Publication> publications;
  for (const fs::path& folder : folders) {
    if (!fs::is_directory(folder)) continue;
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".toml") files.insert(entry.path());
    }
    for (const fs::path& file : files) {
      Publication publication = read_publication(file);
      if (find(publications, publication.source) == nullptr)
        publications.push_back(std::move(publication));
    }
  }
  return publications;
}

std::vector<Publication> find_publications(const std::vector<ReferenceChoice>& choices,
                                           const std::vector<Publication>& known,
                                           ResultStore* store) {
  std::vector<Publication> found;
  for (const ReferenceChoice& choice : choices) {
    if (find(found, choice.source) == nullptr) {
      const Publication* publication = find(known, choice.source);
      if (publication != nullptr) {
        found.push_back(*publication);
      } else if (store != nullptr) {
        found.push_back(with_database_errors(
            store->file(), [&] { return stored_publication(store->database(), choice.source); }));
      }
    }
    const Publication* publication = find(found, choice.source);
    if (publication == nullptr || publication->rows.empty()) unknown_source(choice, known, store);
    check_fits(choice, *publication);
  }
  return found;
}

void store_publications(ResultStore& store, const std::vector<Publication>& publications) {
  if (publications.empty()) return;
  with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    for (const Publication& publication : publications) {
      execute(db, "DELETE FROM reference WHERE source = ?", publication.source);
      for (const PublishedRow& row : publication.rows) {
        for (const auto& [metric, value] : row.values) {
          execute(db, "INSERT INTO reference VALUES (?, ?, ?, ?, ?, ?, ?, ?)", publication.source,
                  row.model, row.method, row.setting, row.dataset, metric, value, row.note);
        }
      }
    }
    transaction.commit();
  });
}

std::vector<PaperRow> paper_rows(const std::vector<ReferenceChoice>& choices,
                                 const std::vector<Publication>& publications,
                                 const std::vector<std::string>& columns) {
  std::vector<PaperRow> papers;
  for (const ReferenceChoice& choice : choices) {
    const Publication* publication = find(publications, choice.source);
    ABLATE_CHECK(publication != nullptr, choice.source);
    for (const PublishedRow& row : publication->rows) {
      if (!lets_through(choice, row)) continue;
      PaperRow paper{label_of(row, choice.source), choice.source, {}, row.note};
      bool any = false;
      for (const std::string& column : columns) {
        const auto value = row.values.find(column.substr(0, column.find('@')));  // any protocol
        any = any || value != row.values.end();
        paper.values.push_back(value == row.values.end() ? std::nullopt
                                                         : std::optional(value->second));
      }
      if (any) papers.push_back(std::move(paper));
    }
  }
  return papers;
}

}  // namespace ablate
