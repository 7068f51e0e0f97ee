#include "results/schema.h"

#include <set>

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::TempFolder;

const int kCreate = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

std::set<std::string> names_of(SQLite::Database& db, const std::string& type) {
  std::set<std::string> names;
  auto rows = prepare(
      db, "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite_%'", type);
  while (rows.executeStep()) names.insert(rows.getColumn(0).getString());
  return names;
}

std::string plan_of(SQLite::Database& db, const std::string& sql) {
  SQLite::Statement rows(db, "EXPLAIN QUERY PLAN " + sql);
  std::string plan;
  while (rows.executeStep()) plan += rows.getColumn(3).getString() + "\n";
  return plan;
}

const std::set<std::string> kTablesV1 = {
    "toolchain", "machine",  "dataset",      "sweep",       "variant",   "variant_method",
    "run",       "run_edge", "sweep_run",    "attempt",     "event",     "sweep_variant",
    "metric",    "series",   "attempt_rank", "checkpoint",  "sample",    "variant_param",
    "chunk",     "final",    "bench",        "sample_bits", "reference", "spool"};

TEST(Schema, TheFirstVersionIsTheContract) {
  SQLite::Database db(":memory:", kCreate);
  migrate_to(db, 1);
  EXPECT_EQ(names_of(db, "table"), kTablesV1);
  EXPECT_EQ(names_of(db, "view"),
            (std::set<std::string>{"v_cell", "v_paired", "v_protocol_mix", "v_holes"}));
  EXPECT_EQ(names_of(db, "index"),
            (std::set<std::string>{"variant_param_by_path", "run_by_cell", "bench_by_structure"}));
  EXPECT_EQ(query_integer(db, "PRAGMA application_id"), 1094863956) << "'ABLT'";
  EXPECT_EQ(query_integer(db, "PRAGMA user_version"), 1);
}

TEST(Schema, EveryMigrationKeepsTablesIndicesAndRows) {
  SQLite::Database db(":memory:", kCreate);
  for (int version = 1; version <= schema_version(); ++version) {
    const auto tables = names_of(db, "table");
    const auto indices = names_of(db, "index");
    migrate_to(db, version);
    EXPECT_EQ(query_integer(db, "PRAGMA user_version"), version);
    for (const auto& name : tables) EXPECT_TRUE(names_of(db, "table").contains(name)) << name;
    for (const auto& name : indices) EXPECT_TRUE(names_of(db, "index").contains(name)) << name;
    if (version == 1) {
      db.exec(
          "INSERT INTO variant VALUES (1, 'c', '{}', NULL);"
          "INSERT INTO dataset VALUES (1, 'd', 's', NULL, NULL);"
          "INSERT INTO run VALUES (1, 'r', 1, 1, 0, 'done', 5);"
          "INSERT INTO attempt(run_id, n, fence) VALUES (1, 1, 1);"
          "INSERT INTO bench(structure_hash, protocol) VALUES ('s', 'p')");
    }
  }
  for (const char* index : {"spool_by_run", "bench_by_origin", "run_edge_by_parent"})
    EXPECT_TRUE(names_of(db, "index").contains(index)) << index;
  EXPECT_EQ(query_text(db, "SELECT state FROM run"), "done");
  EXPECT_EQ(query_integer(db, "SELECT count(*) FROM bench JOIN attempt"), 1);
  EXPECT_EQ(query_text(db, "PRAGMA integrity_check"), "ok");
  EXPECT_NO_THROW(migrate(db)) << "nothing left to do";
}

// The lookups that grow with the database use an index; none scans a table of points or runs.
TEST(Schema, KeyQueriesAreIndexed) {
  SQLite::Database db(":memory:", kCreate);
  migrate(db);
  const std::pair<const char*, const char*> queries[] = {
      {"SELECT step, value FROM sample WHERE series_id = 1 ORDER BY step", "SEARCH sample"},
      {"SELECT data FROM chunk WHERE series_id = 1 ORDER BY step0", "SEARCH chunk"},
      {"SELECT series_id FROM series WHERE run_id = 1 AND metric_id = 1 AND rank = -1",
       "SEARCH series"},
      {"SELECT value FROM final WHERE metric_id = 1 AND run_id = 1", "SEARCH final"},
      {"SELECT run_id FROM run WHERE run_uid = 'x'", "SEARCH run"},
      {"SELECT run_id FROM run WHERE dataset_id = 1 AND variant_id = 1", "SEARCH run"},
      {"SELECT max(n) FROM attempt WHERE run_id = 1", "SEARCH attempt"},
      {"SELECT run_id FROM run_edge WHERE parent_id = 1", "SEARCH run_edge"},
      {"SELECT bytes_done FROM spool WHERE spool_uid = 'x'", "SEARCH spool"},
      {"SELECT spool_uid FROM spool WHERE run_uid = 'x'", "SEARCH spool"},
      {"SELECT max(bench_id) FROM bench WHERE structure_hash = 's' AND protocol = 'p'",
       "SEARCH bench"},
      {"SELECT variant_id FROM variant_param WHERE path = 'optimizer.lr' AND txt = '1'",
       "SEARCH variant_param"}};
  for (const auto& [sql, expected] : queries) {
    const std::string plan = plan_of(db, sql);
    EXPECT_NE(plan.find(expected), std::string::npos) << sql << "\n" << plan;
    EXPECT_EQ(plan.find("SCAN"), std::string::npos) << sql << "\n" << plan;
    EXPECT_EQ(plan.find("TEMP B-TREE"), std::string::npos) << sql << "\n" << plan;
  }
}

TEST(Schema, ForeignAndNewerDatabasesAreRefused) {
  const TempFolder folder;
  {
    SQLite::Database other(folder / "other.db", kCreate);
    other.exec("CREATE TABLE t(a)");
    SQLite::Database newer(folder / "newer.db", kCreate);
    migrate(newer);
    newer.exec("PRAGMA user_version = 1000");
    SQLite::Database older(folder / "older.db", kCreate);
    migrate_to(older, 1);
  }
  const auto message = [&](const std::string& name, ResultStore::Mode mode) -> std::string {
    try {
      ResultStore store(folder / name, mode);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  using Mode = ResultStore::Mode;
  EXPECT_NE(message("other.db", Mode::ReadWrite).find("another program"), std::string::npos);
  EXPECT_NE(message("newer.db", Mode::ReadWrite).find("newer"), std::string::npos);
  EXPECT_NE(message("older.db", Mode::ReadOnly).find("up to date"), std::string::npos);
  EXPECT_EQ(message("older.db", Mode::ReadWrite), "");
  EXPECT_EQ(message("older.db", Mode::ReadOnly), "");
}

}  // namespace
}  // namespace ablate
