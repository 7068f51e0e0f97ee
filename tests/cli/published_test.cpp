#include <gtest/gtest.h>

#include "runner/core/text.h"
#include "tests/cli/cli_fixture.h"

namespace ablate {
namespace {

using test::Cli;
using test::has;
using test::kSweep;

// A sweep file beside a folder of published numbers.
class Published : public Cli {
 protected:
  void write_all(const std::string& references) {
    std::filesystem::create_directories(folder_ / "papers/references");
    write("papers/references/doe.toml",
          "source = \"Doe 2024\"\nnote = \"table 3\"\n[[row]]\nmodel = \"M\"\nmethod = \"cut\"\n"
          "dataset = \"d\"\nvalues = {top1 = 69.5}\n");
    write("papers/s.toml", kSweep + "references = " + references + "\n");
  }
};

TEST_F(Published, StandBelowOursInEveryFormat) {
  write_all("[\"Doe 2024\"]");
  const CapturedRun swept = run({"sweep", "papers/s.toml"});
  ASSERT_EQ(swept.status.code, 0) << swept.errors;
  EXPECT_TRUE(has(swept.output, "M cut (Doe 2024, d)")) << swept.output;
  EXPECT_TRUE(has(swept.output, "not ours: Doe 2024 (table 3)")) << swept.output;
  const auto table = [&](const std::string& format) {
    return run({"table", "papers/s.toml", "-f", format}).output;
  };
  EXPECT_TRUE(has(table("markdown"), "| *M cut (Doe 2024, d)* | *69.5* |"));
  EXPECT_TRUE(has(table("latex"), "\\textit{M cut (Doe 2024, d)} & \\textit{69.5} &"));
  EXPECT_TRUE(has(table("csv"), ",\"M cut (Doe 2024, d)\",paper,top1,%,value,69.5,"));
  EXPECT_TRUE(has(run({"table", "papers/s.toml", "--color", "always"}).output, "\x1b[2;3m"));
}

TEST_F(Published, AreKeptInTheDatabase) {
  write_all("[\"Doe 2024\"]");
  const std::string swept = run({"sweep", "papers/s.toml"}).output;
  std::filesystem::remove_all(folder_ / "papers");
  EXPECT_EQ(run({"table", "demo"}).output, swept);
}

TEST_F(Published, ChangeNothingElseInTheTable) {
  write_all("[\"Doe 2024\"]");
  run({"sweep", "papers/s.toml"});
  const std::string with = run({"table", "papers/s.toml", "-f", "csv"}).output;
  std::string ours;
  for (const std::string& line : split(with, '\n')) {
    if (!has(line, ",paper,")) ours += line + "\n";
  }
  write_all("[]");
  EXPECT_EQ(ours, run({"table", "papers/s.toml", "-f", "csv"}).output + "\n");
}

TEST_F(Published, UnknownOnesAreFoundBeforeAnythingStarts) {
  write_all("[\"Do 2024\"]");
  const CapturedRun bad = run({"sweep", "papers/s.toml"});
  EXPECT_EQ(bad.status.code, 2);
  EXPECT_TRUE(has(bad.errors, "s.toml:16:")) << bad.errors;
  EXPECT_TRUE(has(bad.errors, "did you mean \"Doe 2024\"")) << bad.errors;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out/results.db"));
}

TEST_F(Published, OfTheMethodsPapersComeWithTheProgram) {
  write_all("[{ source = \"Bolya 2023\", model = \"DeiT-S\" }]");
  const CapturedRun swept = run({"sweep", "papers/s.toml"});
  ASSERT_EQ(swept.status.code, 0) << swept.errors;
  EXPECT_TRUE(has(swept.output, "79.36")) << swept.output;
  EXPECT_FALSE(has(swept.output, "71.27")) << "DeiT-Ti was not asked for";
  EXPECT_TRUE(has(run({"list", "references"}).output, "Lin 2024"));
}

}  // namespace
}  // namespace ablate
