#include <csignal>
#include <iostream>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "results/ingest.h"
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

TEST(IngestFaults, TornTailsAndDamageAreCountedNotHidden) {
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

TEST(IngestFaults, TruncatedAndChangedFilesAreReportedAndKeepWhatWasRead) {
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

// A later attempt goes on from a checkpoint, before which the numbers of the earlier one were made
// durable: whoever has cut its spool since has taken numbers away.
TEST(IngestFaults, StepsThatACutSpoolLacksAreReported) {
  SpoolBytes whole("r");
  whole.metric(0, "loss").points(0, 0, 3, 1).points(0, 3, 6, 1);
  SpoolBytes cut("r");
  cut.metric(0, "loss").points(0, 0, 3, 1);
  SpoolBytes last("r", 2, 5);
  last.metric(0, "loss").points(0, 5, 9, 1).outcome(OutcomeState::Done, 9);
  for (const bool complete : {true, false}) {
    const TempFolder spools;
    (complete ? whole : cut).write(spools.path());
    last.write(spools.path());
    Database db;
    const IngestReport report = Ingester(db.store).ingest({spools.path()});
    ASSERT_EQ(report.problems.size(), complete ? 0U : 1U) << join(report.problems, "\n");
    if (complete) continue;
    EXPECT_NE(report.problems[0].find("no numbers of step 4"), std::string::npos)
        << report.problems[0];
  }
}

TEST(IngestFaults, OneBadFileDoesNotHoldUpTheOthers) {
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

TEST(IngestFaults, OneIngesterAtATimeAndADisplacedOneIsRefused) {
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

TEST(IngestFaults, TheLeaseOfADeadProcessIsTakenOver) {
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

TEST(IngestFaults, KilledAtAnyInstantItLosesAndDoublesNothing) {
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
      try {  // or the child would unwind into the test and remove its folder
        ResultStore store(folder / "killed.db");
        Ingester(store).ingest({folder.path()});
      } catch (const Error& error) {
        std::cerr << error.what() << "\n";
        ::_exit(1);
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(delay_us));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status) ? 1 : 0;
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "after " << killed << " kills";
  }
  EXPECT_GT(killed, 0);
  ResultStore store(folder / "killed.db");
  store.check(true);
  Ingester(store).ingest({folder.path()});
  EXPECT_EQ(content_of(store), content_of(expected.store));
  EXPECT_EQ(stored_points(store), 60'000);
}

TEST(IngestFaults, AFullDiskIsAClearErrorAndTheNextIngestGoesOn) {
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

}  // namespace
}  // namespace ablate
