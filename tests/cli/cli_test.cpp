#include <gtest/gtest.h>

#include "runner/cli/command.h"
#include "runner/core/build_info.h"
#include "tests/cli/cli_fixture.h"
#include "tests/support/source_tree.h"

namespace ablate {
namespace {

using test::Cli;
using test::has;
using test::kSweep;

TEST_F(Cli, VersionIsOneLine) {
  const CapturedRun version = run({"--version"});
  EXPECT_EQ(version.status.code, 0);
  EXPECT_TRUE(version.output.starts_with(build_info().version + " (")) << version.output;
  const bool checkout = std::filesystem::exists(test::source_root() / ".git");
  EXPECT_NE(checkout, has(version.output, "unknown")) << version.output;
  EXPECT_EQ(version.output.find('\n'), version.output.size() - 1);
}

TEST_F(Cli, EveryCommandHasHelpWithExamples) {
  const CapturedRun help = run({"--help"});
  EXPECT_EQ(help.status.code, 0);
  for (const std::string& name : Registry<Command>::names()) {
    EXPECT_TRUE(has(help.output, "  " + name + " ")) << name;
    const CapturedRun own = run({name, "--help"});
    EXPECT_EQ(own.status.code, 0) << name;
    EXPECT_TRUE(has(own.output, "Examples:\n")) << name;
    EXPECT_TRUE(has(own.output, "ablate " + name)) << name;
    EXPECT_TRUE(own.errors.empty()) << own.errors;
  }
}

TEST_F(Cli, AllCommandsOfTheDesignExist) {
  for (const char* name :
       {"sweep", "run", "status", "show", "table", "query", "export", "retry", "skip", "gc",
        "ingest", "merge", "reindex", "list", "doctor", "drill", "completion", "analyse"}) {
    EXPECT_TRUE(Registry<Command>::has(name)) << name;
  }
}

TEST_F(Cli, UsageErrorsEndWithTwo) {
  EXPECT_EQ(run({}).status.code, 2);
  const CapturedRun unknown = run({"swep", "x.toml"});
  EXPECT_EQ(unknown.status.code, 2);
  EXPECT_TRUE(has(unknown.errors, "did you mean \"sweep\"")) << unknown.errors;
  const CapturedRun behind = run({"--out", "o", "swep"});
  EXPECT_TRUE(has(behind.errors, "unknown command \"swep\" (did you mean \"sweep\""))
      << behind.errors;
  const CapturedRun option = run({"sweep", "x.toml", "--dryrun"});
  EXPECT_EQ(option.status.code, 2);
  EXPECT_TRUE(
      has(option.errors, "ablate sweep: unknown option --dryrun (did you mean \"--dry-run\""))
      << option.errors;
  EXPECT_TRUE(has(option.errors, "ablate sweep --help")) << option.errors;
  EXPECT_EQ(run({"sweep"}).status.code, 2);
  EXPECT_EQ(run({"sweep", "x.toml", "--keep-going", "--fail-fast"}).status.code, 2);
  EXPECT_EQ(run({"sweep", "--nope"}).status.code, 2);
  EXPECT_EQ(run({"table", "x", "--format", "html"}).status.code, 2);
  EXPECT_TRUE(has(run({"sweep", "x.toml", "--seeds", "0"}).errors, "range 1 to 10000"));
}

TEST_F(Cli, SpecErrorsEndWithTwoAndNameThePlace) {
  const CapturedRun missing = run({"sweep", "missing.toml"});
  EXPECT_EQ(missing.status.code, 2);
  EXPECT_TRUE(has(missing.errors, "missing.toml")) << missing.errors;
  const CapturedRun syntax = run({"sweep", write("bad.toml", "name = \n")});
  EXPECT_EQ(syntax.status.code, 2);
  EXPECT_TRUE(has(syntax.errors, "bad.toml:1:")) << syntax.errors;
  const CapturedRun resolver = run({"sweep", write("typo.toml", kSweep + "[axes]\ntypo = [1]\n")});
  EXPECT_EQ(resolver.status.code, 2);
  EXPECT_TRUE(has(resolver.errors, "typo.toml:17:")) << resolver.errors;
}

TEST_F(Cli, ABaselineThatIsNoRowIsFoundBeforeAnythingStarts) {
  const CapturedRun bad = run({"sweep", write("b.toml", kSweep + "baseline = \"dence\"\n")});
  EXPECT_EQ(bad.status.code, 2);
  EXPECT_TRUE(has(bad.errors, "did you mean \"dense\"")) << bad.errors;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out/results.db"));
}

TEST_F(Cli, CommandsWithoutADatabaseSayWhatToDo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"status"},
                                             {"table", "demo"},
                                             {"query", "SELECT 1"},
                                             {"show", "abc"},
                                             {"retry", "abc"},
                                             {"gc"},
                                             {"reindex"}}) {
    const CapturedRun result = run(arguments);
    EXPECT_EQ(result.status.code, 2) << arguments[0];
    EXPECT_TRUE(has(result.errors, "ablate sweep")) << arguments[0] << ": " << result.errors;
  }
}

TEST_F(Cli, SlipsAreFoundBeforeAnythingStarts) {
  std::string text = kSweep;
  text.replace(text.find("label = \"better\""), 16, "lable = \"better\"");
  const CapturedRun label = run({"sweep", write("l.toml", text)});
  EXPECT_EQ(label.status.code, 2);
  EXPECT_TRUE(has(label.errors, "l.toml:9:1: variant.lable: unknown key (did you mean \"label\""))
      << label.errors;
  const CapturedRun column =
      run({"sweep", write("s.toml", kSweep), "--dry-run", "table.columns=[\"imgs_per_s\"]"});
  EXPECT_EQ(column.status.code, 0) << "a metric may be called anything";
  EXPECT_TRUE(has(column.errors, "did you mean \"images_per_s\"")) << column.errors;
  const CapturedRun jobs = run({"sweep", "s.toml", "--dry-run", "--jobs", "4000"});
  EXPECT_EQ(jobs.status.code, 2);
  EXPECT_TRUE(has(jobs.errors, "accepted: 1 to")) << jobs.errors;
}

TEST_F(Cli, DryRunPrintsThePlanAndLeavesNothing) {
  const CapturedRun plan = run({"sweep", write("s.toml", kSweep), "--dry-run", "--seeds", "3"});
  EXPECT_EQ(plan.status.code, 0) << plan.errors;
  EXPECT_TRUE(has(plan.output, "6 runs: 0 done, 6 to do")) << plan.output;
  EXPECT_TRUE(has(plan.output, "a guess"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

TEST_F(Cli, SweepPrintsItsTableAndASecondStartPrintsTheSameAtOnce) {
  const CapturedRun first = run({"sweep", write("s.toml", kSweep)});
  ASSERT_EQ(first.status.code, 0) << first.errors;
  EXPECT_TRUE(has(first.output, "A demo"));
  EXPECT_TRUE(has(first.output, "better")) << first.output;
  EXPECT_TRUE(has(first.errors, "started  dense seed 0")) << first.errors;
  const CapturedRun second = run({"sweep", "s.toml"});
  EXPECT_EQ(second.status.code, 0);
  EXPECT_EQ(second.output, first.output);
  EXPECT_FALSE(has(second.errors, "started"));
  const CapturedRun table = run({"table", "s.toml"});
  EXPECT_EQ(table.output, first.output);
  EXPECT_EQ(run({"table", "demo"}).output, first.output);
}

TEST_F(Cli, WithoutATerminalThereAreNoEscapes) {
  const CapturedRun done = run({"sweep", write("s.toml", kSweep)});
  EXPECT_FALSE(has(done.output + done.errors, "\x1b"));
  EXPECT_TRUE(has(run({"table", "demo", "--color", "always"}).output, "\x1b["));
}

TEST_F(Cli, MoreSeedsRunOnlyWhatIsMissing) {
  sweep();
  const CapturedRun more = run({"sweep", "s.toml", "--seeds", "3"});
  EXPECT_EQ(more.status.code, 0) << more.errors;
  EXPECT_TRUE(has(more.errors, "4 done, 2 to do")) << more.errors;
  EXPECT_FALSE(has(more.errors, "started  dense seed 1"));
  EXPECT_TRUE(has(more.errors, "started  dense seed 2"));
}

TEST_F(Cli, FailuresEndWithOneAndRetryHelps) {
  const std::string text = kSweep +
                           "[[variant]]\nlabel = \"bad\"\nmodel = { script = "
                           "[\"fail@2\", \"done\"] }\n";
  write("f.toml", text);
  const CapturedRun failed = run({"sweep", "f.toml"});
  EXPECT_EQ(failed.status.code, 1);
  EXPECT_TRUE(has(failed.errors, "no result: bad seed 0: failed (bug)")) << failed.errors;
  EXPECT_TRUE(has(failed.output, "better")) << "the table of what is done is still printed";
  EXPECT_EQ(run({"sweep", "f.toml"}).status.code, 1);
  EXPECT_TRUE(has(run({"status"}).output, "scripted bug"));
  const CapturedRun retried = run({"retry", "--failed"});
  EXPECT_TRUE(has(retried.output, "2 runs may start again")) << retried.output;
  EXPECT_EQ(run({"retry", "--failed", "--sweep", "dem"}).status.code, 2);
  EXPECT_EQ(run({"retry", "--cause", "oops"}).status.code, 2);
  EXPECT_EQ(run({"sweep", "f.toml"}).status.code, 0);
}

TEST_F(Cli, SkippedRunsAreLeftOut) {
  write("s.toml", kSweep);
  run({"sweep", "s.toml", "seeds.count=1"});
  EXPECT_TRUE(has(run({"skip", "dense seed 0"}).output, "is done: left alone"));
  const CapturedRun unknown = run({"skip", "dens seed 0"});
  EXPECT_EQ(unknown.status.code, 2);
  EXPECT_TRUE(has(unknown.errors, "did you mean \"dense seed 0\"")) << unknown.errors;
}

TEST_F(Cli, TableFormats) {
  sweep();
  EXPECT_TRUE(has(run({"table", "demo", "-f", "latex"}).output, "\\toprule"));
  EXPECT_TRUE(has(run({"table", "demo", "-f", "markdown"}).output, "|---"));
  EXPECT_TRUE(has(run({"table", "demo", "-f", "csv"}).output, "row,label,kind"));
  EXPECT_EQ(run({"table", "demo", "-f", "csv", "-o", "t.csv"}).output, "");
  EXPECT_TRUE(std::filesystem::exists(folder_ / "t.csv"));
  EXPECT_EQ(run({"table", "demo", "--columns", "top2"}).status.code, 2);
  EXPECT_EQ(run({"table", "nosuch"}).status.code, 2);
}

TEST_F(Cli, QueryReadsAndNothingElse) {
  sweep();
  const std::string sql = "SELECT state, count(*) AS n FROM run GROUP BY state";
  EXPECT_EQ(run({"query", sql, "--format", "csv"}).output, "state,n\ndone,4\n");
  EXPECT_TRUE(has(run({"query", sql, "--format", "json"}).output, "\"n\": 4"));
  EXPECT_EQ(run({"query", "DELETE FROM run"}).status.code, 2);
  EXPECT_EQ(run({"query", "SELECT * FROM nosuch"}).status.code, 2);
  EXPECT_EQ(run({"query", "SELECT count(*) FROM run", "--format", "csv"}).output, "count(*)\n4\n");
}

TEST_F(Cli, ShowTellsEverythingAboutARun) {
  sweep();
  const CapturedRun show = run({"show", "better seed 1"});
  EXPECT_EQ(show.status.code, 0) << show.errors;
  for (const char* part :
       {"better seed 1  done", "top1", "train/loss", "parent", "dense seed 1", "attempts",
        "environment of attempt 1", "model.top1", "fake training of"}) {
    EXPECT_TRUE(has(show.output, part)) << part << "\n" << show.output;
  }
  EXPECT_EQ(run({"show", "zzz seed 1"}).status.code, 2);
}

TEST_F(Cli, ExportCopiesWeightsStructureAndCurves) {
  sweep();
  EXPECT_EQ(run({"export", "dense seed 0", "--to", "e"}).status.code, 0);
  for (const char* name : {"model.safetensors", "structure.json", "spec.json", "curves.csv"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / "e" / name)) << name;
  }
  EXPECT_EQ(run({"export", "dense seed 0", "--to", "e"}).status.code, 2) << "no silent overwrite";
  EXPECT_EQ(run({"export", "dense seed 0", "--to", "e", "--force"}).status.code, 0);
}

TEST_F(Cli, SpeedIsMeasuredOnceAStructureAfterTraining) {
  std::string text = kSweep;
  text.replace(text.find("\"gmacs\""), 7, "\"images_per_s\"");
  write("b.toml", text);
  EXPECT_EQ(run({"sweep", "b.toml", "--no-bench"}).status.code, 0);
  EXPECT_EQ(run({"query", "SELECT count(*) AS n FROM bench", "--format", "csv"}).output, "n\n0\n");
  const CapturedRun first = run({"sweep", "b.toml"});
  EXPECT_EQ(first.status.code, 0) << first.errors;
  EXPECT_TRUE(has(first.errors, "measure  better seed 0, infer-fp32-b64")) << first.errors;
  EXPECT_FALSE(has(first.errors, "measure  better seed 1")) << "seeds share a structure";
  EXPECT_TRUE(has(first.output, "images_per_s")) << first.output;
  const CapturedRun second = run({"sweep", "b.toml"});
  EXPECT_FALSE(has(second.errors, "measure")) << second.errors;
  EXPECT_EQ(second.output, first.output);
}

TEST_F(Cli, GcKeepsWhatIsNeeded) {
  sweep();
  const CapturedRun dry = run({"gc", "--dry-run", "--spools", "--weights"});
  EXPECT_TRUE(has(dry.output, "would free")) << dry.output;
  EXPECT_TRUE(has(dry.output, "rank0.spool"));
  const CapturedRun real = run({"gc", "--spools"});
  EXPECT_EQ(real.status.code, 0) << real.errors;
  EXPECT_FALSE(has(run({"gc", "--dry-run", "--spools"}).output, "rank0.spool"));
  const std::string before = run({"table", "demo"}).output;
  EXPECT_EQ(run({"sweep", "s.toml"}).output, before);
}

TEST_F(Cli, ALostDatabaseComesBackAndDatabasesMerge) {
  sweep();
  const std::string sql = "SELECT run_uid, state FROM run ORDER BY 1";
  const std::string before = run({"query", sql}).output;
  const CapturedRun ingest = run({"ingest", "out/runs", "--db", "again.db"});
  EXPECT_EQ(ingest.status.code, 0) << ingest.errors;
  EXPECT_EQ(run({"query", sql, "--db", "again.db"}).output, before);
  EXPECT_EQ(run({"merge", "out/results.db", "--db", "merged.db"}).status.code, 0);
  EXPECT_EQ(run({"query", sql, "--db", "merged.db"}).output, before);
  EXPECT_EQ(run({"reindex"}).status.code, 0);
}

TEST_F(Cli, OneRunOutsideASweep) {
  write("r.toml", "dataset = { name = \"d\" }\nmodel = { name = \"fake\", steps = 3 }\n");
  const CapturedRun one = run({"run", "r.toml", "seed=4", "launch.ranks=1"});
  EXPECT_EQ(one.status.code, 0) << one.errors;
  EXPECT_TRUE(has(one.output, "top1")) << one.output;
  EXPECT_TRUE(has(one.output, "70.4"));
  EXPECT_TRUE(has(run({"run", "r.toml", "--dry-run"}).output, "\"model\""));
  write("s.toml", kSweep);
  EXPECT_TRUE(has(run({"run", "s.toml"}).errors, "ablate sweep s.toml"));
}

TEST_F(Cli, ListShowsRegistriesAndSweeps) {
  EXPECT_TRUE(has(run({"list"}).output, "nose"));
  EXPECT_TRUE(has(run({"list", "methods"}).output, "removes attention"));
  EXPECT_TRUE(has(run({"list", "methods", "nose"}).output, "paper"));
  const CapturedRun unknown = run({"list", "methods", "nosse"});
  EXPECT_EQ(unknown.status.code, 2);
  EXPECT_TRUE(has(unknown.errors, "did you mean \"nose\"")) << unknown.errors;
  EXPECT_EQ(run({"list", "planets"}).status.code, 2);
  EXPECT_TRUE(has(run({"list", "launch"}).output, "stall_timeout"));
  EXPECT_TRUE(has(run({"list", "table"}).output, "baseline"));
  sweep();
  EXPECT_TRUE(has(run({"list", "sweeps"}).output, "demo"));
}

TEST_F(Cli, ListShowsWhichMethodsGoTogether) {
  const CapturedRun pairs = run({"list", "--pairs"});
  EXPECT_EQ(pairs.output,
            "a nose\n"
            "b prune  +\n"
            "c tome   1  1\n"
            "         a  b\n"
            "+ works together\n"
            "1 dislike it\n")
      << pairs.errors;
  EXPECT_EQ(run({"list", "methods", "--pairs"}).output, pairs.output);
  EXPECT_EQ(run({"list", "models", "--pairs"}).status.code, 2);
}

TEST_F(Cli, AnalyseDrawsWhatTheWorkerMeasured) {
  sweep();
  const CapturedRun alone = run({"analyse", "better seed 0"});
  ASSERT_EQ(alone.status.code, 0) << alone.errors;
  EXPECT_TRUE(has(alone.output, "12 images of test")) << alone.output;
  EXPECT_TRUE(has(alone.output, "better seed 0: attention")) << alone.output;
  EXPECT_TRUE(has(alone.output, "−1.5    –")) << alone.output;
  EXPECT_TRUE(has(alone.output, "0.00  1.00")) << alone.output;
  EXPECT_FALSE(has(alone.output, "with that block")) << alone.output;
  const CapturedRun both =
      run({"analyse", "better seed 0", "--against", "dense seed 1", "--transplant"});
  ASSERT_EQ(both.status.code, 0) << both.errors;
  EXPECT_TRUE(has(both.output, "dense seed 1: MLP")) << both.output;
  EXPECT_TRUE(has(both.output, "top1 of better seed 0 (%); its own: 70.0")) << both.output;
  EXPECT_TRUE(has(both.output, "60.0  65.5")) << both.output;
  EXPECT_EQ(run({"analyse", "better seed 0", "--transplant"}).status.code, 2);
}

TEST_F(Cli, DoctorNamesWhatItChecks) {
  const CapturedRun doctor = run({"doctor"});
  for (const char* part :
       {"SQLite", "ablate-train", "mpirun", "output folder", "cores", "GPU", "nvcc"}) {
    EXPECT_TRUE(has(doctor.output, part)) << part;
  }
}

TEST_F(Cli, DoctorShowsTheDevicesThatRunsCanUse) {
  ProcessOptions options = test::ablate_process(folder_.path(), {"doctor"});
  options.environment.emplace_back("FAKE_TRAIN_GPUS", "2");
  const CapturedRun doctor = run_and_capture(options, {}, 120);
  EXPECT_TRUE(has(doctor.output, "2 x Fake, 1.0 GiB")) << doctor.output;
}

TEST_F(Cli, CompletionNamesEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const CapturedRun script = run({"completion", shell});
    EXPECT_EQ(script.status.code, 0);
    for (const std::string& name : Registry<Command>::names()) {
      EXPECT_TRUE(has(script.output, name)) << shell << " " << name;
    }
    EXPECT_TRUE(has(script.output, "dry-run"));
  }
  EXPECT_EQ(run({"completion", "tcsh"}).status.code, 2);
}

TEST_F(Cli, DataFoldersMustExist) {
  write("s.toml", kSweep);
  const CapturedRun missing = run({"sweep", "s.toml", "--data", "cifar100=/nonexistent/x"});
  EXPECT_EQ(missing.status.code, 2);
  EXPECT_TRUE(has(missing.errors, "/nonexistent/x")) << missing.errors;
}

TEST_F(Cli, AnUnwritableOutputFolderIsAClearError) {
  write("s.toml", kSweep);
  write("file", "");
  const CapturedRun result = run({"sweep", "s.toml", "--out", "file/out"});
  EXPECT_EQ(result.status.code, 1);
  EXPECT_TRUE(has(result.errors, "file")) << result.errors;
}

TEST_F(Cli, ADamagedDatabaseIsAClearError) {
  std::filesystem::create_directories(folder_ / "out");
  write("out/results.db", std::string(5000, 'x'));
  const CapturedRun result = run({"status"});
  EXPECT_EQ(result.status.code, 1);
  EXPECT_TRUE(has(result.errors, "results.db")) << result.errors;
}

}  // namespace
}  // namespace ablate
