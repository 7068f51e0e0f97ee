#include "results/ingest.h"

#include <cmath>
#include <numeric>
#include <sstream>

#include <gtest/gtest.h>

#include "results/projection.h"
#include "runner/core/error.h"
#include "tests/results/store_fixture.h"

namespace ablate {
namespace {

using test::content_of;
using test::Database;
using test::rows_of;
using test::SpoolBytes;
using test::stored_points;
using test::TempFolder;

namespace fs = std::filesystem;

// Three attempts of two ranks: killed, resumed at 600, resumed earlier at 300 and done.
std::vector<SpoolBytes> three_attempts() {
  std::vector<SpoolBytes> spools;
  const std::int64_t first[] = {0, 600, 300};
  const std::int64_t end[] = {1000, 800, 1200};
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const std::int64_t a = first[attempt - 1];
    const std::int64_t b = end[attempt - 1];
    for (int rank = 0; rank < 2; ++rank) {
      SpoolBytes spool("r", attempt, a, rank);
      spool.add(Facts{FactKind::Environment, cat(R"({"world_size": )", attempt + 1, "}")});
      spool.metric(0, "memory", FinalRule::Max, true).points(0, a, b, attempt * 10.0 + rank);
      if (rank == 0) {
        spool.metric(1, "loss").metric(2, "top1", FinalRule::Max).points(1, a, b, attempt);
        spool.points(2, a, a + 40, -attempt);
        spool.add(Event{a, 5, "resume", R"({"x": 1})"});
        spool.add(SampleBits{"top1", a + 150, 8, std::string(1, static_cast<char>(attempt))});
        spool.add(CheckpointNote{a, cat("at-", a, "-by-", attempt), 1, "sha", "s", false});
        spool.add(CheckpointNote{b, cat("at-", b, "-by-", attempt), 1, "sha", "s", false});
        spool.add(FinalValue{2, b - 1, attempt * 100.0});
        if (attempt == 3) spool.outcome(OutcomeState::Done, b - 1);
        if (attempt == 2) spool.outcome(OutcomeState::Interrupted, b - 1);
      }
      spools.push_back(std::move(spool));
    }
  }
  return spools;
}

// Kills an ingester at many moments; the last one to finish leaves what an undisturbed one does.
TEST(Ingest, ThreeAttemptsInAnyOrderOfFilesGiveOneDatabase) {
  const TempFolder folder;
  std::vector<fs::path> files;
  for (const SpoolBytes& spool : three_attempts()) files.push_back(spool.write(folder.path()));
  std::vector<std::size_t> order(files.size());
  std::iota(order.begin(), order.end(), 0);
  std::string expected;
  int round = 0;
  do {
    // Every 47th of the 720 permutations, and the first.
    if (round++ % 47 != 0) continue;
    Database db;
    Ingester ingester(db.store);
    for (const std::size_t i : order) {
      const IngestReport report = ingester.ingest({files[i]});
      EXPECT_EQ(report.problems, std::vector<std::string>());
    }
    // Owners: attempt 1 has [0, 300), attempt 3 the rest up to 1200, attempt 2 nothing.
    EXPECT_EQ(stored_points(db.store), 1200 + 2 * 1200 + 40 + 40);
    const std::string content = content_of(db.store);
    if (expected.empty()) expected = content;
    ASSERT_EQ(content, expected);
  } while (std::next_permutation(order.begin(), order.end()));
  Database db;
  Ingester(db.store).ingest({folder.path()});
  EXPECT_EQ(content_of(db.store), expected);
  const auto loss = read_curve(db.store, "r", "loss");
  ASSERT_EQ(loss.size(), 1200U);
  for (std::size_t i = 0; i < loss.size(); ++i) {
    EXPECT_EQ(loss[i].step, static_cast<std::int64_t>(i));
    EXPECT_EQ(loss[i].value, (i < 300 ? 1.0 : 3.0) * static_cast<double>(i));
  }
  EXPECT_EQ(rows_of(db.store,
                    "SELECT name, value, step FROM final JOIN metric USING(metric_id) "
                    "ORDER BY 1"),
            "loss|3597.0|1199|\ntop1|300.0|1199|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT path FROM checkpoint ORDER BY step"),
            "at-0-by-1|\nat-300-by-3|\nat-1200-by-3|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT step, hex(bits) FROM sample_bits ORDER BY step"),
            "150|01|\n450|03|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT state FROM run"), "done|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT count(*) FROM sample"), "0|\n") << "all packed at the end";
  EXPECT_NO_THROW(db.store.check(true));
}

TEST(Ingest, ASecondTimeChangesNothing) {
  const TempFolder folder;
  for (const SpoolBytes& spool : three_attempts()) spool.write(folder.path());
  Database db(folder / "results.db");
  const IngestReport first = Ingester(db.store).ingest({folder.path()});
  EXPECT_EQ(first.files, 6);
  const std::string before = content_of(db.store);
  const IngestReport second = Ingester(db.store).ingest({folder.path()});
  EXPECT_EQ(second.files, 0);
  EXPECT_EQ(second.points, 0);
  EXPECT_EQ(content_of(db.store), before);
  // Even when the record of what was read is lost: every step is idempotent.
  db.store.database().exec("UPDATE spool SET bytes_done = 0");
  Ingester(db.store).ingest({folder.path()});
  EXPECT_EQ(content_of(db.store), before);
  EXPECT_EQ(stored_points(db.store), 1200 + 2 * 1200 + 40 + 40);
}

TEST(Ingest, AFileThatGrowsByteByByteEndsEqual) {
  const TempFolder folder;
  SpoolBytes spool("r");
  spool.metric(0, "loss").points(0, 0, 3, 1).metric(1, "top1").points(1, 0, 2, 2);
  spool.points(0, 3, 5, 1).outcome(OutcomeState::Done, 4);
  const fs::path path = spool.write(folder.path());
  Database whole;
  Ingester(whole.store).ingest({path});
  Database grown;
  Ingester ingester(grown.store);
  for (std::size_t size = 0; size <= spool.bytes.size(); ++size) {
    fs::resize_file(path, 0);
    std::ofstream(path, std::ios::binary) << spool.bytes.substr(0, size);
    ingester.ingest({path});
  }
  EXPECT_EQ(content_of(grown.store), content_of(whole.store));
}

TEST(Ingest, ASteadyTrickleKeepsTheUnpackedTailShort) {
  const TempFolder folder;
  Database db;
  Ingester ingester(db.store);
  SpoolBytes spool("r");
  spool.metric(0, "loss");
  for (std::int64_t step = 0; step < 5000; step += 50) {
    spool.points(0, step, step + 50, 0.1);
    ingester.ingest({spool.write(folder.path())});
    EXPECT_LT(*query_integer(db.store.database(), "SELECT count(*) FROM sample"), 512);
    EXPECT_EQ(stored_points(db.store), step + 50);
  }
  const auto curve = read_curve(db.store, "r", "loss");
  ASSERT_EQ(curve.size(), 5000U);
  for (std::size_t i = 0; i < curve.size(); ++i)
    EXPECT_EQ(curve[i].value, 0.1 * static_cast<double>(i));
}

TEST(Ingest, MissingNumbersAndEveryFinalRule) {
  const TempFolder folder;
  SpoolBytes spool("r");
  const FinalRule rules[] = {FinalRule::Last, FinalRule::Max, FinalRule::Min, FinalRule::MeanLastK};
  for (std::uint32_t i = 0; i < 4; ++i) {
    spool.metric(i, std::string(name_of(rules[i])), rules[i]);
    Points points;
    const double values[] = {9, NAN, 1, 2, 3, 4, 5, 6};
    for (int step = 0; step < 8; ++step) points.points.push_back({i, step, values[step]});
    spool.add(points);
  }
  spool.metric(4, "nan").add(Points{{{4, 0, 1}, {4, 1, NAN}}});
  spool.add(Points{{{0, 7, 6.5}}});  // logged twice: the later one counts
  Database db;
  Ingester(db.store).ingest({spool.write(folder.path())});
  const std::string sql =
      "SELECT name, value, step FROM final JOIN metric USING(metric_id) ORDER BY 1";
  const std::string expected =
      "last|6.5|7|\nmax|9.0|0|\nmean_last_k|4.0|7|\nmin|1.0|2|\nnan|NULL|1|\n";
  EXPECT_EQ(rows_of(db.store, sql), expected);
  db.store.database().exec("DELETE FROM final");
  EXPECT_EQ(reindex(db.store).finals, 5);
  EXPECT_EQ(rows_of(db.store, sql), expected);
  EXPECT_TRUE(std::isnan(read_curve(db.store, "r", "max")[1].value));
  std::ostringstream csv;
  export_csv(db.store, "r", {"nan", "last"}, csv);
  EXPECT_EQ(csv.str().substr(0, 40), "metric,rank,step,value\nlast,-1,0,9\nlast,");
  EXPECT_NE(csv.str().find("nan,-1,1,\n"), std::string::npos);
  EXPECT_THROW(export_csv(db.store, "r", {"lost"}, csv), SpecError);
}

TEST(Ingest, FactsFillTheirTablesAndAnotherFingerprintIsAnError) {
  const TempFolder folder;
  SpoolBytes a("r");
  a.add(Facts{FactKind::Toolchain, R"({"libtorch": "2.11", "git_diff": "+x", "odd": 1})"});
  a.add(Facts{FactKind::Machine, R"({"hostname": "n1", "cores": 2})"});
  a.add(Facts{FactKind::Environment, R"({"world_size": 2, "slurm_job": "7"})"});
  a.add(Facts{FactKind::Data, R"({"n": 50, "fingerprint": "f1"})"});
  a.add(BenchNote{R"({"structure_hash": "s", "protocol": "p", "images_per_s": 10, "macs": 5})"});
  SpoolBytes b("q");
  b.add(Facts{FactKind::Toolchain, R"({"libtorch": "2.11", "git_diff": "+x"})"});
  b.add(Facts{FactKind::Data, R"({"n": 50, "fingerprint": "f2"})"});
  Database db(std::vector<std::string>{"r", "q"});
  Ingester ingester(db.store);
  EXPECT_TRUE(ingester.ingest({a.write(folder.path())}).problems.empty());
  const auto problems = ingester.ingest({b.write(folder.path())}).problems;
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_NE(problems[0].find("different data under one name"), std::string::npos);
  EXPECT_EQ(rows_of(db.store, "SELECT libtorch, typeof(git_diff) FROM toolchain"), "2.11|blob|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT count(DISTINCT toolchain_id) FROM attempt"), "1|\n");
  EXPECT_EQ(rows_of(db.store,
                    "SELECT hostname, cores FROM attempt_rank JOIN machine "
                    "USING(machine_id)"),
            "n1|2|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT n, fingerprint FROM dataset"), "50|f1|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT kind, body_json FROM event"), "toolchain|{\"odd\":1}|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT images_per_s, macs, toolchain_id FROM bench"), "10.0|5|1|\n");
}

TEST(Ingest, BenchJobsLeaveTheStateOfTheirRunAlone) {
  const TempFolder folder;
  Database db;
  const ClaimedAttempt claim = db.store.claim_bench("r");
  EXPECT_EQ(claim.attempt, 0);
  EXPECT_EQ(db.store.claim_bench("r").attempt, -1);
  SpoolBytes spool("r", claim.attempt);
  spool.add(BenchNote{R"({"structure_hash": "s", "protocol": "p"})"});
  spool.outcome(OutcomeState::Done);
  Ingester(db.store).ingest({spool.write(folder.path())});
  EXPECT_EQ(rows_of(db.store, "SELECT state FROM run"), "ready|\n");
  EXPECT_EQ(rows_of(db.store, "SELECT count(*) FROM bench"), "1|\n");
  EXPECT_EQ(db.store.claim("r")->attempt, 1);
}

TEST(Ingest, ReadersSeeConsistentDataMeanwhile) {
  const TempFolder folder;
  Database db(folder / "results.db");
  ResultStore reader(folder / "results.db", ResultStore::Mode::ReadOnly);
  Ingester ingester(db.store);
  SpoolBytes spool("r");
  spool.metric(0, "a").metric(1, "b");
  for (std::int64_t step = 0; step < 300; step += 10) {
    SQLite::Transaction snapshot(reader.database());
    const std::size_t before = read_curve(reader, "r", "a").size();
    spool.points(0, step, step + 10, 1).points(1, step, step + 10, 1);
    ingester.ingest({spool.write(folder.path())});
    EXPECT_EQ(read_curve(reader, "r", "b").size(), before) << "one snapshot";
    snapshot.commit();
    EXPECT_EQ(read_curve(reader, "r", "a").size(), static_cast<std::size_t>(step + 10));
    EXPECT_EQ(read_curve(reader, "r", "b").size(), static_cast<std::size_t>(step + 10));
  }
  EXPECT_THROW(reader.register_runs({}), Error);
}

TEST(Ingest, OnlyReadAndEndedSpoolsAreRemovable) {
  const TempFolder folder;
  Database db(folder / "results.db", {"done", "open", "grown"});
  SpoolBytes done("done"), open("open"), grown("grown");
  done.outcome(OutcomeState::Done).write(folder.path());
  open.write(folder.path());
  grown.outcome(OutcomeState::Done).write(folder.path());
  Ingester(db.store).ingest({folder.path()});
  grown.add(Event{}).write(folder.path());
  EXPECT_EQ(removable_spools(db.store), std::vector<fs::path>{folder / done.path});
}

}  // namespace
}  // namespace ablate
