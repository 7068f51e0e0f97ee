#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "results/store.h"
#include "results/table_data.h"
#include "results/table_spec.h"

namespace ablate {

/// Numbers printed in one row of a publication's table.
struct PublishedRow {
  std::string model, method, setting, dataset;  ///< together unique; setting may be empty
  std::string note;
  std::map<std::string, double> values;  ///< by column
};

struct Publication {
  std::string source;  ///< what `references` of a table names: "Bolya 2023"
  std::vector<PublishedRow> rows;
};

/// Reads a file of published numbers: `source`, a `note` for all rows, and `[[row]]` tables with
/// model, method, dataset, `values` (column = number), and if need be setting and a note of their
/// own. Throws SpecError with file:line:column.
Publication read_publication(const std::filesystem::path& file);

/// All publications in *.toml of the folders; where two files have one source, the first folder's
/// counts. Folders that do not exist are passed over.
std::vector<Publication> read_publications(const std::vector<std::filesystem::path>& folders);

/// Those among `known` that a table asks for, else as the database holds them from earlier on
/// (`store` may be nullptr). Throws SpecError for a source that is in neither, and for a choice of
/// model, method or data set that no row of the source fits.
std::vector<Publication> find_publications(const std::vector<ReferenceChoice>& choices,
                                           const std::vector<Publication>& known,
                                           ResultStore* store);

/// Keeps them in table `reference`, in place of earlier rows of the same sources, so that tables of
/// this database can be printed where the files are not.
void store_publications(ResultStore& store, const std::vector<Publication>& publications);

/// The rows of a table: those the choices let through that have a number in one of the columns.
std::vector<PaperRow> paper_rows(const std::vector<ReferenceChoice>& choices,
                                 const std::vector<Publication>& publications,
                                 const std::vector<std::string>& columns);

}  // namespace ablate
