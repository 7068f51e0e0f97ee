#include "results/store.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "results/file_system_probe.h"
#include "results/status.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::make_run;
using test::rows_of;
using test::SpoolBytes;
using test::TempFolder;

namespace fs = std::filesystem;

template <typename Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Outcome outcome_of(OutcomeState state, const std::string& cause) {
  Outcome outcome;
  outcome.state = state;
  outcome.cause = cause;
  return outcome;
}

// parent -> child, two seeds; and a variant of its own.
std::vector<RegisteredRun> family() {
  std::vector<RegisteredRun> runs;
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    runs.push_back(make_run(cat("parent", seed), "p", seed));
    runs.push_back(make_run(cat("child", seed), "c", seed));
    runs.back().parents = {{"init", cat("parent", seed)}};
    runs.back().methods = {{"nose", true}, {"tome", false}};
    runs.back().row = 1;
    runs.push_back(make_run(cat("alone", seed), "a", seed));
    runs.back().row = 2;
  }
  return runs;
}

std::vector<std::string> uids(const std::vector<RunLine>& lines) {
  std::vector<std::string> list;
  for (const RunLine& line : lines) list.push_back(line.run_uid);
  return list;
}

TEST(Store, PragmasFollowTheFileSystem) {
  const TempFolder folder;
  ResultStore store(folder / "sub/results.db");
  SQLite::Database& db = store.database();
  EXPECT_EQ(query_text(db, "PRAGMA journal_mode"), "wal");
  EXPECT_EQ(query_integer(db, "PRAGMA synchronous"), 1);
  EXPECT_EQ(query_integer(db, "PRAGMA foreign_keys"), 1);
  EXPECT_EQ(query_integer(db, "PRAGMA trusted_schema"), 0);
  EXPECT_EQ(query_integer(db, "PRAGMA busy_timeout"), 10000);
  EXPECT_TRUE(store.is_local());
  EXPECT_TRUE(has_reliable_locks(folder.path()));
  EXPECT_TRUE(fs::is_empty(folder.path()) || fs::exists(folder / "sub"));
}

TEST(Store, RegisteringAgainChangesNothingAndEditsKeepTheOtherRuns) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  std::vector<RegisteredRun> runs = family();
  store.register_sweep({"s", "text 1"}, runs);
  const std::string content = test::content_of(store);
  store.register_sweep({"s", "text 1"}, runs);
  EXPECT_EQ(test::content_of(store), content);
  EXPECT_EQ(
      uids(sweep_runs(store, "s")),
      (std::vector<std::string>{"parent0", "child0", "alone0", "parent1", "child1", "alone1"}));
  EXPECT_TRUE(store.claim("parent0"));
  EXPECT_TRUE(store.finish("parent0", 1, outcome_of(OutcomeState::Done, "finished")));
  runs.resize(3);
  runs[2] = make_run("edited0", "e", 0);
  runs[2].label = "row a";
  store.register_sweep({"s", "text 2"}, runs);
  EXPECT_EQ(uids(sweep_runs(store, "s")),
            (std::vector<std::string>{"parent0", "edited0", "child0"}));
  EXPECT_EQ(sweep_runs(store, "s")[0].state, "done");
  EXPECT_TRUE(store.knows_run("alone1")) << "runs stay, only the list of the sweep changes";
  EXPECT_THROW(sweep_runs(store, "t"), SpecError);
  runs[1].label = "other label";
  runs[1].config_hash = runs[0].config_hash;
  EXPECT_NE(message_of([&] {
              store.register_sweep({"s", "x"}, runs);
            }).find("same configuration"),
            std::string::npos);
  EXPECT_EQ(sweep_runs(store, "s").size(), 3U) << "a refused registration leaves no trace";
}

TEST(Store, ParametersAreFlattenedToThePathsOfASpec) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_runs(family());
  EXPECT_EQ(rows_of(store,
                    "SELECT path, num, txt FROM variant_param JOIN variant USING(variant_id)"
                    " WHERE config_hash = 'c' ORDER BY path"),
            "config|NULL|c|\nepochs|3.0|3|\nmethods.tome.name|NULL|tome|\nmethods.tome.r|4.0|4|\n"
            "model.depth|12.0|12|\nmodel.name|NULL|vit|\n");
  EXPECT_EQ(rows_of(store, "SELECT DISTINCT model FROM variant"), "vit|\n");
  EXPECT_EQ(rows_of(store, "SELECT name, origin FROM variant_method ORDER BY position"),
            "nose|parent|\ntome|own|\n");
}

TEST(Store, NotesOfAVariantAreThoseOfTheNewestRegistrationThatBringsAny) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  std::vector<RegisteredRun> runs{make_run("r")};
  const auto notes = [&] {
    return rows_of(store, "SELECT text FROM variant_note ORDER BY position");
  };
  store.register_sweep({"s", "x"}, runs);
  EXPECT_EQ(notes(), "");
  runs[0].notes = {"nose: ours", "tome: ours"};
  store.register_sweep({"s", "x"}, runs);
  EXPECT_EQ(notes(), "nose: ours|\ntome: ours|\n");
  runs[0].notes.clear();  // as an ingester knows it, from the spec alone
  store.register_runs(runs);
  EXPECT_EQ(notes(), "nose: ours|\ntome: ours|\n");
  runs[0].notes = {"nose: published since"};
  store.register_runs(runs);
  EXPECT_EQ(notes(), "nose: published since|\n");
}

TEST(Store, StatesGoTheirWay) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_sweep({"s", "x"}, family());
  EXPECT_EQ(store.ready_runs("s"),
            (std::vector<std::string>{"parent0", "alone0", "parent1", "alone1"}));
  EXPECT_FALSE(store.claim("child0")) << "its parent is not done";
  const auto claim = store.claim("parent0");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->attempt, 1);
  EXPECT_FALSE(store.claim("parent0")) << "taken";
  EXPECT_TRUE(store.finish("parent0", 1, outcome_of(OutcomeState::Transient, "oom")));
  EXPECT_EQ(describe_run(store, "parent0").run.state, "interrupted");
  EXPECT_EQ(store.claim("parent0")->attempt, 2);
  EXPECT_FALSE(store.finish("parent0", 1, outcome_of(OutcomeState::Failed, "bug")))
      << "an attempt of the past has no say";
  EXPECT_TRUE(store.finish("parent0", 2, outcome_of(OutcomeState::Done, "finished")));
  EXPECT_EQ(store.ready_runs("s"),
            (std::vector<std::string>{"child0", "alone0", "parent1", "alone1"}));
  EXPECT_FALSE(store.skip("parent0"));
  EXPECT_TRUE(store.skip("alone0"));
  store.claim("alone1");
  store.finish("alone1", 1, outcome_of(OutcomeState::Diverged, "nan"));
  EXPECT_EQ(uids(sweep_holes(store, "s")),
            (std::vector<std::string>{"child0", "parent1", "child1"}));
  EXPECT_TRUE(store.retry("alone1"));
  EXPECT_TRUE(store.retry("alone0"));
  EXPECT_FALSE(store.retry("parent0"));
  EXPECT_EQ(store.claim("alone1")->attempt, 2);
  const SweepLine line = list_sweeps(store).at(0);
  EXPECT_EQ(line.runs_by_state, (std::map<std::string, int>{
                                    {"done", 1}, {"planned", 1}, {"ready", 3}, {"running", 1}}));
}

TEST(Store, TheSpooledOutcomeIsTheTruth) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_runs(family());
  store.claim("parent0");
  store.finish("parent0", 1, outcome_of(OutcomeState::Failed, "bug"));  // mpirun's exit status
  SpoolBytes other("parent0", 1, 0, 1), main("parent0", 1);
  other.outcome(OutcomeState::Interrupted);
  main.outcome(OutcomeState::Done);
  Ingester ingester(store);
  ingester.ingest({other.write(folder.path())});
  EXPECT_EQ(describe_run(store, "parent0").run.state, "interrupted");
  ingester.ingest({main.write(folder.path())});
  EXPECT_EQ(describe_run(store, "parent0").run.state, "done") << "rank 0 has the last word";
  EXPECT_TRUE(store.finish("parent0", 1, outcome_of(OutcomeState::Failed, "bug")));
  EXPECT_EQ(describe_run(store, "parent0").run.state, "done");
  EXPECT_EQ(describe_run(store, "child0").run.state, "ready");
}

// The others have nothing to write at the end: they are done while rank 0 still saves the weights.
TEST(Store, NoRankButTheFirstIsDoneForTheRun) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_runs(family());
  store.claim("parent0");
  SpoolBytes other("parent0", 1, 0, 1);
  other.outcome(OutcomeState::Done);
  Ingester ingester(store);
  ingester.ingest({other.write(folder.path())});
  EXPECT_EQ(describe_run(store, "parent0").run.state, "running");
  store.finish("parent0", 1, outcome_of(OutcomeState::Transient, "killed"));
  EXPECT_EQ(describe_run(store, "parent0").run.state, "interrupted");
  EXPECT_EQ(describe_run(store, "child0").run.state, "planned");
}

TEST(Store, OneOfManyProcessesGetsARun) {
  const TempFolder folder;
  { ResultStore(folder / "results.db").register_runs(family()); }
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      int taken = 0;
      {
        ResultStore store(folder / "results.db");
        for (const char* run : {"parent0", "parent1", "alone0", "alone1"})
          taken += store.claim(run) ? 1 : 0;
      }
      ::_exit(taken);
    }
    children.push_back(child);
  }
  int taken = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    taken += WEXITSTATUS(status);
  }
  EXPECT_EQ(taken, 4);
}

TEST(Store, RunsAreFoundByUniquePrefix) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_runs(family());
  EXPECT_EQ(store.find_run("parent1"), "parent1");
  EXPECT_EQ(store.find_run("child1"), "child1");
  EXPECT_NE(message_of([&] { store.find_run("p"); }).find("several"), std::string::npos);
  EXPECT_NE(message_of([&] { store.find_run("x"); }).find("no run"), std::string::npos);
}

TEST(Store, ShowsARunWithItsFamily) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_sweep({"s", "x"}, family());
  SpoolBytes spool("child0", 1);
  spool.add(Facts{FactKind::Lineage, R"({"init": "abc"})"});
  spool.add(
      Facts{FactKind::Toolchain, R"({"libtorch": "2.11", "git_commit": "0123456789abcdef"})"});
  spool.add(Facts{FactKind::Machine, R"({"hostname": "n1"})"});
  spool.add(Facts{FactKind::Environment, R"({"world_size": 2, "launcher": "mpirun"})"});
  spool.metric(0, "top1").points(0, 0, 3, 10).add(FinalValue{0, 3, 55});
  spool.add(Event{3, 7, "finalized", R"({"structure_hash": "sh"})"}).outcome(OutcomeState::Done, 3);
  Ingester(store).ingest({spool.write(folder.path())});
  const RunDetail detail = describe_run(store, "child0");
  EXPECT_EQ(detail.run.label, "row c");
  EXPECT_EQ(detail.run.state, "done");
  EXPECT_EQ(detail.sweeps, std::vector<std::string>{"s"});
  ASSERT_EQ(detail.parents.size(), 1U);
  EXPECT_EQ(detail.parents[0].weights_sha256, "abc");
  EXPECT_EQ(describe_run(store, "parent0").children.at(0).run_uid, "child0");
  ASSERT_EQ(detail.methods.size(), 2U);
  EXPECT_TRUE(detail.methods[0].inherited);
  ASSERT_EQ(detail.attempts.size(), 1U);
  EXPECT_EQ(detail.attempts[0].world_size, 2);
  EXPECT_EQ(detail.attempts[0].hosts, "n1");
  EXPECT_EQ(detail.attempts[0].environment,
            (std::vector<std::pair<std::string, std::string>>{{"LibTorch", "2.11"},
                                                              {"commit", "0123456789abcdef"}}));
  ASSERT_EQ(detail.finals.size(), 1U);
  EXPECT_EQ(detail.finals[0].value, 55);
  EXPECT_EQ(detail.finals[0].rule, "declared");
  EXPECT_EQ(detail.events.size(), 2U);
  EXPECT_EQ(rows_of(store, "SELECT structure_hash FROM run WHERE structure_hash IS NOT NULL"),
            "sh|\n");
  EXPECT_THROW(describe_run(store, "nobody"), SpecError);
}

TEST(Store, ASpecBesideTheSpoolsRegistersItsRunAndItsParents) {
  const TempFolder folder;
  RunSpec parent;
  parent.dataset = {"synthetic", 1, Value(Value::Table{{"holdout", 5}})};
  parent.seed = 3;
  RunSpec child = parent;
  child.methods = {{"tome", 1, Value()}};
  child.parents = {{"init", parent.id(), parent.config_hash()}};
  const auto place = [&](const RunSpec& spec) {
    fs::create_directories(folder / cat("runs/", spec.id(), "/attempt-1"));
    write_file_atomic(folder / cat("runs/", spec.id(), "/spec.json"), spec.canonical());
  };
  place(child);
  SpoolBytes spool(child.id());
  spool.metric(0, "loss").points(0, 0, 3, 1);
  spool.write(folder / cat("runs/", child.id(), "/attempt-1"));
  ResultStore store(folder / "results.db");
  auto report = Ingester(store).ingest({folder / "runs"});
  ASSERT_EQ(report.problems.size(), 1U) << "the parent is not there yet";
  place(parent);
  report = Ingester(store).ingest({folder / "runs"});
  EXPECT_EQ(report.problems, std::vector<std::string>());
  EXPECT_EQ(report.points, 3);
  const RunDetail detail = describe_run(store, child.id());
  EXPECT_EQ(detail.run.seed, 3U);
  EXPECT_EQ(detail.parents.at(0).run_uid, parent.id());
  EXPECT_EQ(rows_of(store, "SELECT name, split FROM dataset"), "synthetic|holdout=5|\n");
}

TEST(Store, DamageIsNamedWithTheWayOut) {
  const TempFolder folder;
  const fs::path file = folder / "results.db";
  {
    ResultStore store(file);
    store.register_runs(family());
    for (int i = 0; i < 2000; ++i) {
      RegisteredRun run = make_run(cat("more", i), "m", static_cast<std::uint64_t>(i));
      store.register_runs(std::vector{run});
      if (i == 200) break;
    }
    store.check(true);
  }
  const std::string good = read_file(file);
  std::string bad = good;
  for (std::size_t i = 8192; i < bad.size(); i += 64) bad[i] = static_cast<char>(bad[i] ^ 0x55);
  write_file_atomic(file, bad);
  const auto use = [&] {
    ResultStore store(file);
    store.check();
  };
  std::string message = message_of(use);
  EXPECT_NE(message.find(file.string()), std::string::npos) << message;
  EXPECT_NE(message.find("ablate ingest"), std::string::npos) << message;
  write_file_atomic(file, "this is not a database, it is a text");
  EXPECT_NE(message_of(use).find("rebuild"), std::string::npos);
  write_file_atomic(file, good.substr(0, good.size() / 2));
  EXPECT_NE(message_of(use).find("rebuild"), std::string::npos);
  write_file_atomic(file, good);
  EXPECT_EQ(message_of(use), "");
}

TEST(Store, UnusablePlacesAreNamed) {
  EXPECT_NE(message_of([] { ResultStore store("/proc/nowhere/results.db"); }).find("/proc/nowhere"),
            std::string::npos);
  const TempFolder folder;
  EXPECT_NE(message_of([&] {
              ResultStore store(folder / "none.db", ResultStore::Mode::ReadOnly);
            }).find("no such database"),
            std::string::npos);
  fs::create_directory(folder / "folder.db");
  EXPECT_NE(message_of([&] { ResultStore store(folder / "folder.db"); }).find("folder.db"),
            std::string::npos);
}

TEST(Store, SnapshotsAreWholeAndReadable) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  store.register_sweep({"s", "x"}, family());
  store.snapshot(folder / "snap/copy.db");
  ResultStore copy(folder / "snap/copy.db", ResultStore::Mode::ReadOnly);
  EXPECT_EQ(query_text(copy.database(), "PRAGMA journal_mode"), "delete") << "one file suffices";
  EXPECT_EQ(test::content_of(copy), test::content_of(store));
  EXPECT_THROW(store.snapshot(folder / "snap/copy.db"), Error);
  EXPECT_THROW(copy.claim("parent0"), Error);
}

}  // namespace
}  // namespace ablate
