#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"
#include "tests/support/drill_report.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Cli;
using test::drill_case;
using test::drill_text;
using test::has;

// Drills of the stand-in trainer, which meets planned faults as the true one does; that one is
// drilled in tests/end_to_end.
class DrillCommand : public Cli {
 protected:
  CapturedRun drill(std::vector<std::string> arguments) {
    // As many steps as the true trainer makes, on one rank.
    arguments.insert(arguments.begin(), {"drill", "model.steps=32", "launch.ranks=1"});
    return run(std::move(arguments));
  }
  json report(std::vector<std::string> arguments, int code) {
    arguments.emplace_back("--json");
    const CapturedRun run = drill(std::move(arguments));
    EXPECT_EQ(run.status.code, code) << run.output << run.errors;
    return json::parse(run.output);
  }
  fs::path out() const { return folder_ / "out"; }
};

TEST_F(DrillCommand, EveryCaseOfThisMachineEndsAsPromised) {
  const json found = report({"launch.stall_timeout=3"}, 0);
  std::vector<std::string> names;
  for (const json& one : found.at("cases")) {
    names.push_back(one.at("name"));
    EXPECT_EQ(one.at("passed"), true) << one;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"undisturbed", "kill", "hang", "oom", "nan", "disk",
                                             "term", "usr1", "ablate"}));
  EXPECT_EQ(found.at("passed"), 9);
  EXPECT_EQ(found.at("planned"), 9);
  EXPECT_TRUE(has(drill_text(drill_case(found, "hang"), "found"), "transient (hang)")) << found;
  EXPECT_TRUE(has(drill_text(drill_case(found, "term"), "found"), "interrupted")) << found;
  // Without mpirun between them its rank ends with ablate.
  EXPECT_TRUE(has(drill_text(drill_case(found, "ablate"), "found"), "same result")) << found;
  EXPECT_TRUE(fs::is_empty(out())) << "nothing is left";
}

TEST_F(DrillCommand, ARunThatMayNotBeTriedAgainIsFoundOut) {
  const json found = report({"--only", "kill", "launch.retries=0"}, 1);
  EXPECT_EQ(found.at("passed"), 1) << "the undisturbed one";
  const json kill = drill_case(found, "kill");
  EXPECT_EQ(kill.at("passed"), false);
  EXPECT_TRUE(has(drill_text(kill, "found"), "drill seed 0 is interrupted after 1 attempt"))
      << kill;
  EXPECT_TRUE(has(drill_text(kill, "fix"), "raise launch.retries")) << kill;
  EXPECT_TRUE(fs::exists(fs::path(drill_text(kill, "folder")) / "stderr.txt")) << "kept for a look";
}

TEST_F(DrillCommand, AHangThatNobodyNoticesIsFoundOut) {
  const CapturedRun run = drill({"--only", "hang", "--patience", "2"});
  EXPECT_EQ(run.status.code, 1) << run.errors;
  EXPECT_TRUE(has(run.output, "FAIL hang")) << run.output;
  EXPECT_TRUE(has(run.output, "did not come to an end")) << run.output;
  EXPECT_TRUE(has(run.output, "-> lower launch.stall_timeout")) << run.output;
  EXPECT_TRUE(has(run.output, "1 of 2 ended as promised")) << run.output;
  EXPECT_TRUE(has(run.errors, "drill 2 of 2: hang")) << run.errors;
}

TEST_F(DrillCommand, FoldersAreKeptOnRequest) {
  const json nan = drill_case(report({"--only", "nan", "--keep"}, 0), "nan");
  EXPECT_TRUE(has(drill_text(nan, "found"), "not tried again")) << nan;
  EXPECT_TRUE(fs::exists(fs::path(drill_text(nan, "folder")) / "out/results.db")) << nan;
}

TEST_F(DrillCommand, WithoutAnUndisturbedRunNothingIsCompared) {
  const json found = report({"model.script=[\"fail@3\"]"}, 1);
  EXPECT_EQ(found.at("cases").size(), 1U) << found;
  EXPECT_TRUE(has(drill_text(found.at("cases").at(0), "found"), "0 of 2 runs are done")) << found;
}

TEST_F(DrillCommand, WhatCannotBeDrilledIsRefused) {
  EXPECT_EQ(drill({"--only", "flood"}).status.code, 2);
  const CapturedRun refused = drill({"--only", "controller"});
  EXPECT_EQ(refused.status.code, 2);
  EXPECT_TRUE(has(refused.errors, "--executor slurm")) << refused.errors;
  const CapturedRun typo = drill({"launch.retrys=0"});
  EXPECT_EQ(typo.status.code, 2) << typo.errors;
  EXPECT_TRUE(has(typo.errors, "retries")) << typo.errors;
}

}  // namespace
}  // namespace ablate
