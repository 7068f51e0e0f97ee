#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace ablate {
namespace {

using test::Cli;

// What a shell offers, asked in a true bash.
class Completion : public Cli {
 protected:
  /// The words offered for the last of the given ones, which have been typed.
  std::string offered(const std::string& typed) {
    write("ask.sh",
          "source <(" + test::program("ablate").string() + " completion bash)\n" + "COMP_WORDS=(" +
              test::program("ablate").string() + " " + typed + ")\n" +
              "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))\n_ablate\necho \"${COMPREPLY[*]}\"\n");
    ProcessOptions options = test::ablate_process(folder_.path(), {});
    options.arguments = {"bash", "ask.sh"};
    const CapturedRun answer = run_and_capture(options, {}, 60);
    EXPECT_EQ(answer.status.code, 0);
    EXPECT_EQ(answer.errors, "");
    return answer.output;
  }
};

TEST_F(Completion, CommandsAndOptions) {
  EXPECT_EQ(offered("sw"), "sweep\n");
  EXPECT_EQ(offered("--ou"), "--out\n");
  EXPECT_EQ(offered("--out x st"), "status\n");
  EXPECT_EQ(offered("sweep --dr"), "--dry-run\n");
  EXPECT_EQ(offered("table --base"), "--baseline\n");
}

TEST_F(Completion, ValuesOfOptions) {
  EXPECT_EQ(offered("table --format ''"), "terminal markdown latex csv\n");
  EXPECT_EQ(offered("table -f la"), "latex\n");
  EXPECT_EQ(offered("query --format ''"), "table csv json\n");
  EXPECT_EQ(offered("sweep --color n"), "never\n");
  EXPECT_EQ(offered("completion f"), "fish\n");
}

TEST_F(Completion, WhatTheDatabaseAndTheRegistriesHold) {
  sweep();
  EXPECT_EQ(offered("status ''"), "demo\n");
  EXPECT_EQ(offered("table d"), "demo\n");
  const std::string id =
      run({"query", "--format", "csv", "SELECT run_uid FROM run LIMIT 1"}).output;
  const std::string digits = id.substr(id.find('\n') + 1, 8);
  EXPECT_EQ(offered("show " + digits.substr(0, 7)), digits + "\n");
  std::filesystem::rename(folder_ / "out", folder_ / "elsewhere");
  EXPECT_EQ(offered("--out elsewhere status ''"), "demo\n");
  EXPECT_EQ(offered("list mod"), "models\n");
}

TEST_F(Completion, FilesWhereNothingElseIsKnown) {
  write("mine.toml", "");
  EXPECT_EQ(offered("sweep mi"), "mine.toml\n");
}

}  // namespace
}  // namespace ablate
