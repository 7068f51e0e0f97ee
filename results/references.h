#pragma once

#include <filesystem>

#include "results/store.h"

namespace ablate {

/// Reads published numbers into table `reference`: one TOML file, or all of a folder. A file has a
/// `source` (what `references` of a table names) and `[[row]]` tables with model, method, dataset,
/// optional setting and note, and `values`: column name = number. Rows of the same source are
/// replaced, so reading again changes nothing. Returns the number of values. Throws SpecError with
/// file:line:column.
int load_references(ResultStore& store, const std::filesystem::path& place);

}  // namespace ablate
