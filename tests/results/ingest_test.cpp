#include "results/ingest.h"

#include <cmath>
#include <csignal>
#include <numeric>
#include <sstream>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "results/projection.h"
#include "results/spool_writer.h"
#include "runner/core/error.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::content_of;
using test::make_run;
using test::rows_of;
using test::SpoolBytes;
using test::stored_points;
using test::TempFolder;

namespace fs = std::filesystem;

/// A database with runs, in its own folder unless a file is named.
struct Database {
  explicit Database(const std::vector<std::string>& runs = {"r"}) : store(folder / "own.db") {
    add(runs);
  }
  explicit Database(const fs::path& file, const std::vector<std::string>& runs = {"r"})
      : store(file) {
    add(runs);
  }
  void add(const std::vector<std::string>& runs) {
    std::uint64_t seed = 0;
    for (const std::string& uid : runs)
      store.register_runs(std::vector{make_run(uid, "c", seed++)});
  }
  TempFolder folder;
  ResultStore store;
};

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

TEST(Ingest, TornTailsAndDamageAreCountedNotHidden) {
  const TempFolder folder;
  SpoolBytes spool("r");
  spool.metric(0, "loss").points(0, 0, 5, 1).points(0, 5, 9, 1).outcome(OutcomeState::Done, 8);
  SpoolBytes damaged = spool;
  damaged.bytes[spool.ends[1] + 30] ^= 1;
  Database db;
  const IngestReport report = Ingester(db.store).ingest({damaged.write(folder.path())});
  EXPECT_EQ(report.points, 4);
  EXPECT_EQ(report.lost_bytes, spool.ends[2] - spool.ends[1]);
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_NE(report.problems[0].find("damaged"), std::string::npos);
  EXPECT_EQ(rows_of(db.store, "SELECT lost_bytes FROM spool"),
            cat(spool.ends[2] - spool.ends[1], "|\n"));

  Database torn;
  SpoolBytes cut("r");
  cut.metric(0, "loss").points(0, 0, 5, 1);
  cut.bytes.resize(cut.bytes.size() - 1);
  SpoolBytes next("r", 2, 3);
  next.metric(0, "loss").points(0, 3, 4, 1);
  Ingester ingester(torn.store);
  EXPECT_EQ(ingester.ingest({cut.write(folder.path())}).torn_bytes, 0U) << "may still be growing";
  ingester.ingest({next.write(folder.path())});
  EXPECT_GT(ingester.ingest({folder / cut.path}).torn_bytes, 0U);
}

TEST(Ingest, TruncatedAndChangedFilesAreReportedAndKeepWhatWasRead) {
  const TempFolder folder;
  SpoolBytes spool("r");
  spool.metric(0, "loss").points(0, 0, 5, 1);
  const fs::path path = spool.write(folder.path());
  Database db;
  Ingester(db.store).ingest({path});
  fs::resize_file(path, spool.ends[1]);
  auto report = Ingester(db.store).ingest({path});
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_NE(report.problems[0].find("truncated"), std::string::npos);
  spool.bytes.back() = static_cast<char>(spool.bytes.back() ^ 1);
  spool.points(0, 5, 9, 1).write(folder.path());
  report = Ingester(db.store).ingest({path});
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_NE(report.problems[0].find("changed"), std::string::npos);
  EXPECT_EQ(stored_points(db.store), 5);
}

TEST(Ingest, OneBadFileDoesNotHoldUpTheOthers) {
  const TempFolder folder;
  std::ofstream(folder / "a.spool") << "this is no spool file, but long enough to be looked at";
  SpoolBytes("unknown run").write(folder.path());
  SpoolBytes bad("r");
  bad.add(Facts{FactKind::Environment, "not json"});
  bad.add(Facts{FactKind::Environment, R"({"world_size": "many"})"});
  bad.add(FinalValue{7, 0, 1}).points(7, 0, 3, 1).metric(0, "loss").points(0, 0, 3, 1);
  bad.write(folder.path());
  Database db;
  const IngestReport report = Ingester(db.store).ingest({folder.path()});
  EXPECT_EQ(report.points, 3);
  const std::string all = join(report.problems, "\n");
  for (const char* part : {"a.spool", "unknown run", "not a JSON object", "does not fit the schema",
                           "definition is lost"})
    EXPECT_NE(all.find(part), std::string::npos) << part << " in\n" << all;
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
  const Claim claim = db.store.claim_bench("r");
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

TEST(Ingest, OneIngesterAtATimeAndADisplacedOneIsRefused) {
  const TempFolder folder;
  Database db(folder / "results.db");
  SpoolBytes spool("r");
  const fs::path path = spool.metric(0, "loss").points(0, 0, 3, 1).write(folder.path());
  {
    Ingester first(db.store);
    try {
      Ingester second(db.store);
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::to_string(::getpid())), std::string::npos);
    }
    // A host that lost its lease without noticing: the number in the database has moved on.
    db.store.database().exec("UPDATE ingest_fence SET fence = fence + 1");
    EXPECT_THROW(first.ingest({path}), Error);
    EXPECT_EQ(stored_points(db.store), 0);
    fs::remove(folder / "results.db.ingest-lease");
    EXPECT_THROW(first.ingest({path}), Error);
  }
  EXPECT_EQ(Ingester(db.store).ingest({path}).points, 3);
}

TEST(Ingest, TheLeaseOfADeadProcessIsTakenOver) {
  const TempFolder folder;
  Database db(folder / "results.db");
  const pid_t child = ::fork();
  if (child == 0) {
    ResultStore own(folder / "results.db");
    auto* leaked = new Ingester(own);
    ::_exit(leaked != nullptr ? 0 : 1);
  }
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(fs::exists(folder / "results.db.ingest-lease"));
  EXPECT_NO_THROW(Ingester{db.store});
  EXPECT_FALSE(fs::exists(folder / "results.db.ingest-lease"));
}

// Kills an ingester at many moments; the last one to finish leaves what an undisturbed one does.
TEST(Ingest, KilledAtAnyInstantItLosesAndDoublesNothing) {
  const TempFolder folder;
  std::vector<std::string> runs;
  for (int r = 0; r < 30; ++r) {
    runs.push_back(cat("run", r));
    SpoolBytes spool(runs.back());
    spool.metric(0, "loss").metric(1, "top1", FinalRule::Max);
    for (std::int64_t step = 0; step < 1000; step += 100)
      spool.points(0, step, step + 100, 0.5).points(1, step, step + 100, 2);
    spool.outcome(OutcomeState::Done, 999).write(folder.path());
  }
  Database expected(folder / "expected.db", runs);
  Ingester(expected.store).ingest({folder.path()});
  { const Database made(folder / "killed.db", runs); }
  int killed = 0;
  for (int delay_us = 500; delay_us < 60'000; delay_us = delay_us * 3 / 2) {
    const pid_t child = ::fork();
    if (child == 0) {
      ResultStore store(folder / "killed.db");
      Ingester(store).ingest({folder.path()});
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(delay_us));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status) ? 1 : 0;
  }
  EXPECT_GT(killed, 0);
  ResultStore store(folder / "killed.db");
  store.check(true);
  Ingester(store).ingest({folder.path()});
  EXPECT_EQ(content_of(store), content_of(expected.store));
  EXPECT_EQ(stored_points(store), 60'000);
}

TEST(Ingest, AFullDiskIsAClearErrorAndTheNextIngestGoesOn) {
  const TempFolder folder;
  SpoolBytes spool("r");
  spool.metric(0, "loss");
  for (std::int64_t step = 0; step < 100'000; step += 1000) spool.points(0, step, step + 1000, 0.1);
  const fs::path path = spool.write(folder.path());
  { const Database made(folder / "results.db"); }
  const pid_t child = ::fork();
  if (child == 0) {  // a limit on file sizes fails write() as a full disk does
    ::signal(SIGXFSZ, SIG_IGN);
    int verdict = 1;
    try {
      ResultStore store(folder / "results.db");
      Ingester ingester(store);
      const rlimit limit{300'000, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      ingester.ingest({path});
    } catch (const Error& error) {
      const std::string message = error.what();
      verdict = message.find("results.db") != std::string::npos &&
                        message.find("disk") != std::string::npos
                    ? 0
                    : 2;
    }
    ::_exit(verdict);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  ResultStore store(folder / "results.db");
  store.check(true);
  Ingester(store).ingest({path});
  EXPECT_EQ(stored_points(store), 100'000);
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
