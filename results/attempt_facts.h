#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/record.h"
#include "results/sqlite.h"

namespace ablate {

/// Whose facts they are.
struct AttemptKey {
  std::int64_t run = 0;
  std::int64_t attempt = 0;  ///< attempt_id
  int rank = 0;
};

/// Puts the facts a spool tells about its attempt into their tables. Facts of the attempt as a
/// whole are those of rank 0; without them, of whichever rank told. Returns keys that have no
/// column as JSON text ("" without any). Throws SpecError when the text is not a JSON object or a
/// data fingerprint contradicts the one known under the same name.
std::string store_facts(SQLite::Database& database, const AttemptKey& key, const Facts& facts);

/// Inserts a row of the bench table, once for one `origin`. Throws SpecError when the text is not a
/// JSON object with a structure_hash and a protocol.
void store_bench(SQLite::Database& database, const AttemptKey& key, const BenchNote& note,
                 const std::string& origin, std::int64_t measured_us);

}  // namespace ablate
