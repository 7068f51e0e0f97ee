#include "results/query.h"

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "results/merge.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::content_of;
using test::make_run;
using test::SpoolBytes;
using test::stored_points;
using test::TempFolder;

namespace fs = std::filesystem;

std::string shown(const QueryResult& result, QueryFormat format) {
  std::ostringstream out;
  write_result(result, format, out);
  return out.str();
}

class Query : public testing::Test {
 protected:
  Query() {
    ResultStore store(file);
    store.register_runs(std::vector{make_run("r1", "c", 1), make_run("r2", "c", 2)});
  }
  TempFolder folder;
  const fs::path file = folder / "results.db";
};

TEST_F(Query, RowsComeInThreeForms) {
  const QueryResult result = query_database(
      file,
      "SELECT run_uid, seed, 0.1 AS x, NULL AS n, 'a \"b\", c' AS t, x'0fa0' AS b FROM run "
      "ORDER BY run_uid DESC;");
  EXPECT_EQ(shown(result, QueryFormat::Table),
            "run_uid  seed    x     n  t         b\n"
            "r2          2  0.1  NULL  a \"b\", c  0fa0\n"
            "r1          1  0.1  NULL  a \"b\", c  0fa0\n");
  EXPECT_EQ(shown(result, QueryFormat::Csv),
            "run_uid,seed,x,n,t,b\n"
            "r2,2,0.1,,\"a \"\"b\"\", c\",0fa0\n"
            "r1,1,0.1,,\"a \"\"b\"\", c\",0fa0\n");
  const QueryResult one = query_database(file, "SELECT run_uid, seed FROM run WHERE seed = 1");
  EXPECT_EQ(shown(one, QueryFormat::Json),
            "[\n  {\n    \"run_uid\": \"r1\",\n    \"seed\": 1\n  }\n]\n");
}

TEST_F(Query, ViewsJsonAndPlansWork) {
  for (const char* sql :
       {"SELECT * FROM v_cell", "SELECT * FROM v_paired", "SELECT * FROM v_holes",
        "SELECT * FROM v_protocol_mix", "SELECT model FROM variant",
        "SELECT json_extract(config_json, '$.model.params.depth') FROM variant",
        "EXPLAIN QUERY PLAN SELECT * FROM run", "PRAGMA table_info(run)",
        "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 3) "
        "SELECT * FROM c"})
    EXPECT_FALSE(query_database(file, sql).columns.empty()) << sql;
}

TEST_F(Query, JsonUnfoldsIntoRows) {
  EXPECT_EQ(
      shown(query_database(file, "SELECT key, value FROM json_each('{\"a\": 1, \"b\": [2]}')"),
            QueryFormat::Csv),
      "key,value\na,1\nb,[2]\n");
  EXPECT_EQ(shown(query_database(file,
                                 "SELECT seed, j.fullkey FROM run, json_tree('[[5]]') AS j "
                                 "WHERE atom IS NOT NULL ORDER BY seed"),
                  QueryFormat::Csv),
            "seed,fullkey\n1,$[0][0]\n2,$[0][0]\n");
  for (const char* other : {"SELECT * FROM sqlite_stmt", "UPDATE json_each SET value = 1",
                            "CREATE VIRTUAL TABLE t USING json_each"}) {
    EXPECT_THROW(query_database(file, other), SpecError) << other;
  }
}

TEST_F(Query, NothingCanBeChanged) {
  const std::string before = read_file(file);
  const std::string attach = cat("ATTACH '", (folder / "x.db").string(), "' AS x");
  for (const std::string& sql :
       {std::string("DELETE FROM run"), std::string("UPDATE run SET seed = 5"),
        std::string("INSERT INTO ingest_fence VALUES (2, 2)"), std::string("DROP TABLE run"),
        std::string("CREATE TABLE t(a)"), std::string("CREATE TEMP TABLE t(a)"), attach,
        std::string("VACUUM"), std::string("PRAGMA journal_mode = delete"),
        std::string("PRAGMA user_version = 7"), std::string("PRAGMA query_only = 0"),
        std::string("PRAGMA writable_schema = 1"), std::string("SELECT load_extension('x')"),
        std::string("SELECT 1; DELETE FROM run"), std::string("BEGIN"), std::string("REINDEX"),
        cat("VACUUM INTO '", (folder / "y.db").string(), "'")})
    EXPECT_THROW(query_database(file, sql), SpecError) << sql;
  EXPECT_EQ(read_file(file), before);
  EXPECT_FALSE(fs::exists(folder / "x.db"));
  EXPECT_FALSE(fs::exists(folder / "y.db"));
}

TEST_F(Query, MistakesAreExplained) {
  try {
    query_database(file, "SELECT * FROM runs");
    FAIL();
  } catch (const SpecError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("no such table: runs"), std::string::npos) << message;
    EXPECT_NE(message.find("v_holes"), std::string::npos) << message;
  }
  EXPECT_THROW(query_database(file, "SELEC 1"), SpecError);
  for (const char* nothing : {"", " ; ", "-- a comment"}) {
    try {
      query_database(file, nothing);
      ADD_FAILURE() << nothing;
    } catch (const SpecError& error) {
      EXPECT_NE(std::string(error.what()).find("give one SELECT"), std::string::npos);
    }
  }
}

// Two machines did a part each, one run on both.
class Merge : public testing::Test {
 protected:
  Merge() {
    fill("a.db", {make_run("both", "p", 1), make_run("only_a", "a", 1)}, "both", 50,
         OutcomeState::Interrupted);
    RegisteredRun child = make_run("child", "c", 1);
    child.parents = {{"init", "both"}};
    fill("b.db", {make_run("filler", "f", 9), make_run("both", "p", 1), child}, "both", 1000,
         OutcomeState::Done);
  }
  void fill(const std::string& name, const std::vector<RegisteredRun>& runs,
            const std::string& trained, std::int64_t steps, OutcomeState state) {
    ResultStore store(folder / name);
    store.register_sweep({"s", "text of " + name}, runs);
    SpoolBytes spool(trained);
    spool.add(Facts{FactKind::Data, R"({"n": 5, "fingerprint": "f"})"});
    spool.add(Facts{FactKind::Machine, cat(R"({"hostname": ")", name, "\"}")});
    spool.add(Facts{FactKind::Toolchain, R"({"libtorch": "2.11"})"});
    if (name == "b.db") spool.metric(7, "other").points(7, 0, 3, 1);
    spool.metric(0, "loss").points(0, 0, steps, 0.5).add(Event{1, 2, "surgery", "{}"});
    spool.metric(1, "top1").add(FinalValue{1, steps, 70});
    spool.add(SampleBits{"top1", steps, 4, "\x03"});
    spool.add(CheckpointNote{steps, "c", 1, "sha", "s", false});
    spool.add(BenchNote{R"({"structure_hash": "s", "protocol": "p", "macs": 4})"});
    spool.outcome(state, steps);
    Ingester(store).ingest({spool.write(folder.path())});
  }
  TempFolder folder;
};

TEST_F(Merge, TakesTheFurtherRunWholeAndIsIdempotent) {
  ResultStore store(folder / "a.db");
  const MergeReport report = merge_database(store, folder / "b.db");
  EXPECT_EQ(report.new_runs, 2);
  EXPECT_EQ(report.replaced_runs, 1);
  EXPECT_EQ(report.kept_runs, 0);
  EXPECT_NO_THROW(store.check(true));
  EXPECT_EQ(stored_points(store), 1003);
  EXPECT_EQ(read_curve(store, "both", "loss").size(), 1000U);
  EXPECT_EQ(read_curve(store, "both", "other").size(), 3U);
  EXPECT_EQ(test::rows_of(store, "SELECT run_uid, state FROM run ORDER BY 1"),
            "both|done|\nchild|ready|\nfiller|ready|\nonly_a|ready|\n");
  EXPECT_EQ(test::rows_of(store,
                          "SELECT hostname FROM attempt_rank JOIN machine "
                          "USING(machine_id)"),
            "b.db|\n");
  EXPECT_EQ(test::rows_of(store, "SELECT count(*) FROM bench"), "2|\n") << "one from each machine";
  EXPECT_EQ(test::rows_of(store, "SELECT count(*) FROM sweep"), "2|\n");
  EXPECT_EQ(store.ready_runs("s"), (std::vector<std::string>{"only_a"}));
  const std::string content = content_of(store);
  const MergeReport again = merge_database(store, folder / "b.db");
  EXPECT_EQ(again.new_runs + again.replaced_runs, 0);
  EXPECT_EQ(content_of(store), content);
  EXPECT_EQ(test::rows_of(store, "SELECT count(*) FROM sweep"), "2|\n");
  EXPECT_EQ(test::rows_of(store, "SELECT count(*) FROM bench"), "2|\n");
  // The other way round ends with the same content.
  ResultStore other(folder / "b.db");
  merge_database(other, folder / "a.db");
  EXPECT_EQ(content_of(other), content);
}

// One file, run with other settings on each machine: two sweeps, each with its own rows.
TEST_F(Merge, OneLabelNeverMeansTwoVariants) {
  const auto sweep_of = [&](const std::string& file, const std::string& config) {
    ResultStore store(folder / file);
    RegisteredRun run = make_run("run of " + config, config);
    run.label = "dense";
    run.notes = {"of " + config, "and more"};
    store.register_sweep({"one", "text"}, std::vector{run});
  };
  sweep_of("x.db", "epochs 1");
  sweep_of("y.db", "epochs 2");
  sweep_of("z.db", "epochs 3");
  ResultStore store(folder / "x.db");
  for (int round = 0; round < 2; ++round) {
    merge_database(store, folder / "y.db");
    merge_database(store, folder / "z.db");
    EXPECT_EQ(test::rows_of(store,
                            "SELECT count(*), count(DISTINCT name), count(DISTINCT run_uid), "
                            "count(DISTINCT config_hash), count(DISTINCT label) FROM sweep "
                            "JOIN sweep_run USING(sweep_id) JOIN run USING(run_id) "
                            "JOIN sweep_variant USING(sweep_id, variant_id) "
                            "JOIN variant USING(variant_id)"),
              "3|3|3|3|1|\n");
    EXPECT_EQ(test::rows_of(store,
                            "SELECT config_hash, text FROM variant_note JOIN variant "
                            "USING(variant_id) ORDER BY config_hash, position"),
              "epochs 1|of epochs 1|\nepochs 1|and more|\nepochs 2|of epochs 2|\n"
              "epochs 2|and more|\nepochs 3|of epochs 3|\nepochs 3|and more|\n");
  }
}

TEST_F(Merge, RefusesOtherDataUnderOneName) {
  ResultStore store(folder / "a.db");
  { ResultStore(folder / "b.db").database().exec("UPDATE dataset SET fingerprint = 'g'"); }
  const std::string before = content_of(store);
  EXPECT_THROW(merge_database(store, folder / "b.db"), SpecError);
  EXPECT_THROW(merge_database(store, folder / "missing.db"), Error);
  EXPECT_EQ(content_of(store), before);
}

}  // namespace
}  // namespace ablate
