#include "results/merge_sweeps.h"

#include "results/sqlite.h"
#include "runner/core/hash.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

// What a sweep of the source is called here. One of the same name and text is the same sweep,
// unless a label of it means another variant (overrides on the command line do that); else it is
// kept under a second name, made of what tells it apart.
std::string name_here(SQLite::Database& db, std::int64_t sweep) {
  auto there = prepare(db, "SELECT name, spec_hash FROM src.sweep WHERE sweep_id = ?", sweep);
  there.executeStep();
  std::string name = there.getColumn(0).getString();
  const std::string text = there.getColumn(1).getString();
  const auto known = query_text(db, "SELECT spec_hash FROM main.sweep WHERE name = ?", name);
  if (!known) return name;
  const auto clash = query_integer(
      db,
      "SELECT 1 FROM src.sweep_variant sv JOIN src.variant v USING(variant_id) "
      "JOIN main.sweep d ON d.name = ? "
      "JOIN main.sweep_variant dv ON dv.sweep_id = d.sweep_id AND dv.label = sv.label "
      "JOIN main.variant w ON w.variant_id = dv.variant_id "
      "WHERE sv.sweep_id = ? AND w.config_hash <> v.config_hash LIMIT 1",
      name, sweep);
  if (known == text && !clash) return name;
  auto rows = prepare(db,
                      "SELECT label, config_hash FROM src.sweep_variant "
                      "JOIN src.variant USING(variant_id) WHERE sweep_id = ? ORDER BY label",
                      sweep);
  std::string content = text;
  while (rows.executeStep()) {
    content += cat("\n", rows.getColumn(0).getString(), "\n", rows.getColumn(1).getString());
  }
  return cat(name, " (", hash128_hex(content).substr(0, 8), ")");
}

}  // namespace

void merge_sweeps(SQLite::Database& db) {
  db.exec("CREATE TEMP TABLE sweep_map(there INTEGER PRIMARY KEY, name TEXT NOT NULL)");
  SQLite::Statement sweeps(db, "SELECT sweep_id FROM src.sweep");
  while (sweeps.executeStep()) {
    const std::int64_t sweep = sweeps.getColumn(0).getInt64();
    execute(db, "INSERT INTO temp.sweep_map VALUES (?, ?)", sweep, name_here(db, sweep));
  }
  sweeps.reset();
  db.exec(R"sql(
INSERT OR IGNORE INTO main.sweep(name, spec_toml, spec_hash, created_us)
  SELECT m.name, s.spec_toml, s.spec_hash, s.created_us FROM src.sweep s
  JOIN temp.sweep_map m ON m.there = s.sweep_id;
INSERT OR IGNORE INTO main.sweep_variant
  SELECT d.sweep_id, dv.variant_id, v.label, v.position FROM src.sweep_variant v
  JOIN temp.sweep_map m ON m.there = v.sweep_id JOIN main.sweep d ON d.name = m.name
  JOIN src.variant sv ON sv.variant_id = v.variant_id
  JOIN main.variant dv ON dv.config_hash = sv.config_hash;
INSERT OR IGNORE INTO main.sweep_run
  SELECT d.sweep_id, p.here FROM src.sweep_run r
  JOIN temp.sweep_map m ON m.there = r.sweep_id JOIN main.sweep d ON d.name = m.name
  JOIN temp.plan p ON p.there = r.run_id;
DROP TABLE temp.sweep_map;
)sql");
}

}  // namespace ablate
