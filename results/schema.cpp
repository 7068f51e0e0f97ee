#include "results/schema.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include "results/schema_v1.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

void migration_1(SQLite::Database& db) {
  db.exec(kSchemaV1Tables);
  db.exec(kSchemaV1Views);
}

// What exactly-once ingest and the life of an attempt need beyond the contract.
void migration_2(SQLite::Database& db) {
  db.exec(R"sql(
-- How the attempt ended. told_by: rank whose spool said so (the lowest wins), NULL: the launcher.
ALTER TABLE attempt ADD COLUMN outcome TEXT
  CHECK(outcome IN('done','interrupted','diverged','failed','transient'));
ALTER TABLE attempt ADD COLUMN exit_code INTEGER;
ALTER TABLE attempt ADD COLUMN told_by INTEGER;
-- Local metric ids of a spool: its definitions may lie before the place where ingest goes on.
CREATE TABLE spool_metric(
  spool_uid TEXT NOT NULL, local_id INTEGER NOT NULL,
  metric_id INTEGER NOT NULL REFERENCES metric, per_rank INTEGER NOT NULL,
  PRIMARY KEY(spool_uid, local_id)) STRICT, WITHOUT ROWID;
ALTER TABLE spool ADD COLUMN lost_bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX spool_by_run ON spool(run_uid, attempt_n);
-- Values the run itself declared final: they precede the metric's final rule.
CREATE TABLE declared_final(
  run_id INTEGER NOT NULL REFERENCES run, metric_id INTEGER NOT NULL REFERENCES metric,
  value REAL, step INTEGER NOT NULL, PRIMARY KEY(run_id, metric_id)) STRICT, WITHOUT ROWID;
-- Where a bench row came from, "<spool uid>:<sequence>": a second ingest or merge changes nothing.
ALTER TABLE bench ADD COLUMN origin TEXT;
CREATE UNIQUE INDEX bench_by_origin ON bench(origin);
-- The finalized model's structure: what bench rows are found by.
ALTER TABLE run ADD COLUMN structure_hash TEXT;
CREATE INDEX run_edge_by_parent ON run_edge(parent_id);
-- The number of the ingester that may write: one that lost its lease without noticing is refused.
CREATE TABLE ingest_fence(id INTEGER PRIMARY KEY CHECK(id = 1), fence INTEGER NOT NULL) STRICT;
INSERT INTO ingest_fence VALUES (1, 0);
-- Attempts numbered 0 and below are bench jobs: what they ran on is no property of the training.
DROP VIEW v_protocol_mix;
CREATE VIEW v_protocol_mix AS
SELECT r.variant_id, r.dataset_id, count(DISTINCT a.toolchain_id) toolchains,
  count(DISTINCT a.world_size) worlds
FROM run r JOIN attempt a USING(run_id) WHERE a.n > 0
GROUP BY 1,2 HAVING toolchains>1 OR worlds>1;
)sql");
}

// "Working load" (the largest batch within a byte budget) and the speed against a baseline that was
// measured in turns with it.
void migration_3(SQLite::Database& db) {
  db.exec(R"sql(
ALTER TABLE bench ADD COLUMN threads INTEGER;
ALTER TABLE bench ADD COLUMN max_batch INTEGER;
ALTER TABLE bench ADD COLUMN memory_budget INTEGER;
ALTER TABLE bench ADD COLUMN ratio REAL;
ALTER TABLE bench ADD COLUMN ratio_spread REAL;
)sql");
}

// When a bench row was measured: the newest one of a structure counts, in whatever order spools
// were ingested.
void migration_4(SQLite::Database& db) {
  db.exec(R"sql(
ALTER TABLE bench ADD COLUMN measured_us INTEGER;
UPDATE bench SET measured_us = (
  SELECT a.start_us FROM spool s JOIN run r USING(run_uid)
  JOIN attempt a ON a.run_id = r.run_id AND a.n = s.attempt_n
  WHERE s.spool_uid = substr(bench.origin, 1, instr(bench.origin, ':') - 1));
)sql");
}

// What has to stand below every table that shows a variant: which formulas of its methods are ours.
void migration_5(SQLite::Database& db) {
  db.exec(R"sql(
CREATE TABLE variant_note(
  variant_id INTEGER NOT NULL REFERENCES variant, position INTEGER NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY(variant_id, position)) STRICT, WITHOUT ROWID;
)sql");
}

constexpr Migration kMigrations[] = {migration_1, migration_2, migration_3, migration_4,
                                     migration_5};

int pragma(SQLite::Database& db, const char* name) {
  return db.execAndGet(cat("PRAGMA ", name)).getInt();
}

// Throws unless the database is ours and not newer; returns its version, 0 for an empty file.
int version_of_ours(SQLite::Database& db) {
  const int id = pragma(db, "application_id");
  const int version = pragma(db, "user_version");
  const bool empty = db.execAndGet("SELECT count(*) FROM sqlite_schema").getInt() == 0;
  if (empty && id == 0 && version == 0) return 0;
  if (id != kApplicationId) {
    throw Error(cat(db.getFilename(), ": is an SQLite database of another program (application id ",
                    id, ", wanted ", kApplicationId, "); give another --db"));
  }
  if (version > schema_version()) {
    throw Error(cat(db.getFilename(), ": has schema version ", version,
                    ", this program knows versions up to ", schema_version(),
                    "; use the newer ablate that wrote it"));
  }
  return version;
}

}  // namespace

std::span<const Migration> migrations() { return kMigrations; }

int schema_version() { return static_cast<int>(std::size(kMigrations)); }

void migrate_to(SQLite::Database& db, int version) {
  while (version_of_ours(db) < version) {
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    const int current = version_of_ours(db);  // another process may have been faster
    if (current >= version) break;
    kMigrations[current](db);
    db.exec(cat("PRAGMA application_id = ", kApplicationId));
    db.exec(cat("PRAGMA user_version = ", current + 1));
    transaction.commit();
  }
}

void migrate(SQLite::Database& db) { migrate_to(db, schema_version()); }

void check_schema(SQLite::Database& db) {
  const int version = version_of_ours(db);
  if (version < schema_version()) {
    throw Error(cat(db.getFilename(), ": has schema version ", version, " of ", schema_version(),
                    "; any command that writes (such as `ablate ingest`) brings it up to date"));
  }
}

}  // namespace ablate
