#include "results/table_query.h"

#include <cmath>

#include <gtest/gtest.h>

#include "results/table.h"
#include "runner/core/error.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::make_run;
using test::SpoolBytes;
using test::TempFolder;

// Two rows of three seeds: all done; one done, one diverged, one not started.
class TableQueryTest : public testing::Test {
 protected:
  TableQueryTest() : store(folder / "results.db") {
    std::vector<RegisteredRun> runs;
    for (int seed = 0; seed < 3; ++seed)
      for (const std::string config : {"a", "b"}) {
        runs.push_back(make_run(cat(config, seed), config, static_cast<std::uint64_t>(seed)));
        runs.back().row = config == "a" ? 0 : 1;
        if (config == "b") runs.back().images_seen = 2000;
        if (config == "b") runs.back().notes = {"tome: ours", "ela: ours"};
      }
    store.register_sweep({"s", "x"}, runs);
    for (int seed = 0; seed < 3; ++seed) add(cat("a", seed), 70 + seed, OutcomeState::Done, "sa");
    add("b0", 80, OutcomeState::Done, "sb");
    add("b1", std::nan(""), OutcomeState::Diverged, "sb");
    Ingester(store).ingest({folder.path()});
  }

  void add(const std::string& run, double top1, OutcomeState state, const std::string& structure) {
    SpoolBytes spool(run);
    spool.add(Facts{FactKind::Environment,
                    cat(R"({"world_size": 2, "runs_in_process": )", run == "b0" ? 2 : 1, "}")});
    spool.add(Facts{FactKind::Toolchain, R"({"libtorch": "2.11.0"})"});
    spool.metric(0, "top1").metric(1, "params_m").add(FinalValue{0, 9, top1});
    spool.add(FinalValue{1, 9, 5.7});
    spool.add(MetricDef{2, "step_ms", "ms", Better::Lower, MetricKind::Timing});
    spool.add(Points{{{2, 0, 12}}});
    spool.add(MetricDef{3, "train/mfu", "", Better::Higher, MetricKind::Timing});
    spool.add(Points{{{3, 0, 0.25}, {3, 9, 0.5}}});
    spool.add(Event{9, 9, "finalized", cat(R"({"structure_hash": ")", structure, "\"}")});
    const auto bench = [&](const char* protocol, double images, int bytes) {
      spool.add(BenchNote{cat(R"({"structure_hash": ")", structure, R"(", "protocol": ")", protocol,
                              R"(", "device": "cpu", "batch": 8, "spread": 0.02, "images_per_s": )",
                              images, R"(, "peak_bytes": )", bytes, "}")});
    };
    if (run == "a0") {
      bench("infer-v1", 100, 1 << 20);
      bench("infer-v1", 110, 1 << 21);
      bench("train-v1", 30, 1 << 22);
    }
    if (run == "b0") bench("infer-v2", 150, 1 << 20);
    // Working load against a common baseline; the byte budget is part of the protocol.
    spool.add(BenchNote{cat(R"({"structure_hash": ")", structure,
                            R"(", "protocol": "train-v1", "max_batch": 75, "memory_budget": )",
                            run.starts_with("b") ? 4 << 20 : 2 << 20,
                            R"(, "ratio": 1.25, "baseline_hash": "0123456789"})")});
    spool.outcome(state, 9).write(folder.path());
  }

  TableData table(const std::vector<std::string>& columns) {
    TableSpec spec;
    spec.columns = columns;
    return query_table(store, "s", spec);
  }

  TempFolder folder;
  ResultStore store;
};

TEST_F(TableQueryTest, RowsBringTheNotesOfTheirVariants) {
  const TableData data = table({"top1"});
  EXPECT_EQ(data.rows[0].notes, std::vector<std::string>{});
  EXPECT_EQ(data.rows[1].notes, (std::vector<std::string>{"tome: ours", "ela: ours"}));
}

TEST_F(TableQueryTest, WorkingLoadsOfDifferentBudgetsAreDifferentProtocols) {
  const TableData data = table({"train_max_batch", "train_speedup"});
  EXPECT_EQ(data.rows[0].cells[0].values.at(0).value, 75);
  EXPECT_EQ(data.rows[0].cells[0].protocol, "train-v1, within 2 MiB");
  EXPECT_EQ(data.rows[1].cells[0].protocol, "train-v1, within 4 MiB");
  EXPECT_EQ(data.rows[0].cells[1].values.at(0).value, 1.25);
  EXPECT_EQ(data.rows[0].cells[1].protocol, "train-v1, against structure 01234567");
}

TEST_F(TableQueryTest, TheBaselineIsAsFastAsItself) {
  store.database().exec(
      "DELETE FROM bench WHERE structure_hash = 'sa'; "
      "UPDATE bench SET baseline_hash = 'sa' WHERE structure_hash = 'sb'; "
      "INSERT INTO bench(structure_hash, protocol, images_per_s) VALUES ('sa', 'train-v1', 30)");
  const TableData data = table({"train_speedup"});
  EXPECT_EQ(data.rows[0].cells[0].values.at(0).value, 1);
  EXPECT_EQ(data.rows[1].cells[0].values.at(0).value, 1.25);
  EXPECT_EQ(data.rows[0].cells[0].protocol, data.rows[1].cells[0].protocol);
}

TEST_F(TableQueryTest, SpeedCarriesTheRatioThatWasMeasuredInTurns) {
  store.database().exec(
      "UPDATE bench SET ratio = 1.25, baseline_hash = 'sa' WHERE structure_hash = 'sb'");
  const TableData data = table({"images_per_s", "peak_mem_mib"});
  EXPECT_EQ(data.rows[0].cells[0].structure, "sa");
  EXPECT_TRUE(data.rows[0].cells[0].ratios.empty());
  EXPECT_EQ(data.rows[1].cells[0].ratios, std::vector<double>{1.25});
  EXPECT_EQ(data.rows[1].cells[0].against, "sa");
  EXPECT_TRUE(data.rows[1].cells[1].ratios.empty()) << "memory has no ratio";
}

TEST_F(TableQueryTest, TheNewestBenchRowIsTheOneMeasuredLast) {
  const auto bench = [&](int attempt, double images) {  // later attempts start later
    SpoolBytes spool("a0", attempt);
    spool.add(BenchNote{cat(R"({"structure_hash": "sa", "protocol": "infer-v1", )",
                            R"("images_per_s": )", images, "}")});
    spool.outcome(OutcomeState::Done, 9).write(folder.path());
    Ingester(store).ingest({folder.path()});
  };
  bench(3, 200);
  bench(2, 300);
  EXPECT_EQ(table({"images_per_s"}).rows[0].cells[0].values.at(0).value, 200)
      << "not the one that was ingested last";
}

TEST_F(TableQueryTest, CellsHoldValuesPerSeedAndSayWhatIsMissing) {
  const TableData data = table({"top1", "params_m"});
  ASSERT_EQ(data.rows.size(), 2U);
  EXPECT_EQ(data.rows[0].label, "row a");
  const CellData& a = data.rows[0].cells[0];
  ASSERT_EQ(a.values.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(a.values[i].seed, static_cast<std::int64_t>(i));
    EXPECT_EQ(a.values[i].value, 70.0 + static_cast<double>(i));
  }
  EXPECT_EQ(a.missing + a.diverged, 0U);
  const CellData& b = data.rows[1].cells[0];
  EXPECT_EQ(b.values.size(), 1U);
  EXPECT_EQ(b.diverged, 1U);
  EXPECT_EQ(b.missing, 1U);
  EXPECT_EQ(data.columns[0].split, "test");
  EXPECT_EQ(data.columns[0].final_rule, "last");
  EXPECT_EQ(data.columns[0].better, Better::Higher);
  EXPECT_FALSE(data.columns[0].count);
  EXPECT_TRUE(data.columns[1].count);
  EXPECT_EQ(data.rows[0].images_seen, 1000);
  EXPECT_EQ(data.rows[1].images_seen, 2000);
  EXPECT_EQ(data.rows[0].toolchains, std::vector<std::string>{"libtorch 2.11.0"});
  EXPECT_EQ(data.rows[0].world_sizes, std::vector<std::int64_t>{2});
  EXPECT_EQ(data.title, "s");
}

TEST_F(TableQueryTest, BenchColumnsTakeTheNewestRowOfAStructure) {
  const TableData data =
      table({"images_per_s", "peak_mem_mib", "train_images_per_s", "images_per_s@infer-v1"});
  for (const ColumnData& column : data.columns) EXPECT_EQ(column.kind, ColumnKind::Bench);
  const auto& a = data.rows[0].cells;
  ASSERT_EQ(a[0].values.size(), 3U) << "all seeds share the structure";
  EXPECT_EQ(a[0].values[2].value, 110);
  EXPECT_EQ(a[0].protocol, "infer-v1, cpu, batch 8");
  EXPECT_EQ(a[0].spread, 0.02);
  EXPECT_EQ(a[1].values[0].value, 2);
  EXPECT_FALSE(a[1].spread) << "bytes are counted, not timed";
  EXPECT_EQ(a[2].values[0].value, 30);
  EXPECT_EQ(data.rows[1].cells[0].protocol, "infer-v2, cpu, batch 8");
  EXPECT_TRUE(data.rows[1].cells[2].values.empty());
  EXPECT_TRUE(data.rows[1].cells[3].values.empty());
  TableSpec spec;
  spec.columns = {"images_per_s"};
  EXPECT_THROW(build_table(spec, data), SpecError) << "two protocols in one column";
}

TEST_F(TableQueryTest, TheUseOfADeviceIsThatOfTheLastEpochOfTraining) {
  const TableData data = table({"mfu"});
  EXPECT_EQ(data.columns[0].name, "mfu");
  EXPECT_EQ(data.columns[0].kind, ColumnKind::Timing);
  EXPECT_EQ(data.columns[0].better, Better::Higher);
  EXPECT_EQ(data.rows[0].cells[0].values.at(0).value, 0.5);
}

TEST_F(TableQueryTest, TimesKnowOfCompanyOnTheDevice) {
  const TableData data = table({"wall_h", "gpu_h", "step_ms"});
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_EQ(data.columns[c].kind, ColumnKind::Timing);
    EXPECT_FALSE(data.rows[0].cells[c].shared_device);
    EXPECT_TRUE(data.rows[1].cells[c].shared_device);
  }
  EXPECT_NE(data.columns[0].meaning.find("without their parents'"), std::string::npos);
  EXPECT_NE(data.columns[1].meaning.find("for each rank"), std::string::npos);
  // Attempt 1 begins at 11 s and ends at 99 s, with two ranks.
  EXPECT_DOUBLE_EQ(data.rows[0].cells[0].values[0].value, 88 / 3600.0);
  EXPECT_DOUBLE_EQ(data.rows[0].cells[1].values[0].value, 2 * 88 / 3600.0);
}

TEST_F(TableQueryTest, UnknownNamesAreErrors) {
  EXPECT_THROW(table({"top2"}), SpecError);
  TableSpec spec;
  EXPECT_THROW(query_table(store, "t", spec), SpecError);
  store.register_sweep({"fresh", "x"}, std::vector{make_run("new", "n", 0)});
  spec.columns = {"not_yet_logged"};
  EXPECT_EQ(query_table(store, "fresh", spec).rows[0].cells[0].missing, 1U);
}

TEST_F(TableQueryTest, ShownSqlAndHashFollowTheContent) {
  const TableData data = table({"top1"});
  SQLite::Statement rows(store.database(), data.sql);
  int n = 0;
  while (rows.executeStep()) ++n;
  EXPECT_EQ(n, 5);
  EXPECT_EQ(table({"top1"}).database_hash, data.database_hash);
  store.database().exec("UPDATE final SET value = value + 1");
  EXPECT_NE(table({"top1"}).database_hash, data.database_hash);
}

TEST_F(TableQueryTest, PaperNumbersStandApart) {
  TableSpec spec;
  spec.columns = {"top1", "params_m"};
  spec.references = {{"Doe 2024", "", "pruned", "", {}}};
  const Publication doe{"Doe 2024",
                        {{"ViT-T", "dense", "", "imagenet", "n", {{"top1", 72.2}}},
                         {"ViT-T", "pruned", "", "imagenet", "n", {{"top1", 71}}}}};
  const TableData data = query_table(store, "s", spec, "", {doe});
  ASSERT_EQ(data.papers.size(), 1U);
  EXPECT_EQ(data.papers[0].label, "ViT-T pruned (Doe 2024, imagenet)");
  EXPECT_EQ(data.papers[0].values[0], 71.0);
  EXPECT_FALSE(data.papers[0].values[1].has_value());
}

}  // namespace
}  // namespace ablate
