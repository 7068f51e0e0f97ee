#include "sweeps/sweep_spec.h"

#include <string>

#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

const std::string kHead = R"(name = "t"
[run]
dataset = { name = "synthetic" }
model = { name = "vit" }
)";

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse_sweep_text(text, "s.toml", overrides);
  } catch (const SpecError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SweepSpec, ReadsEverySection) {
  const SweepSpec sweep = parse_sweep_text(kHead + R"(
[[variant]]
label = "dense"
[[variant]]
label = "child"
from = "dense"
from_weights = "ema"
teacher = "dense"
epochs = 0
methods = [ { name = "tome", r = 4 } ]
[axes]
"tome.r" = [2, 4]
optimizer.lr = [1e-3]
[seeds]
list = [5, 3]
[launch]
ranks = 2
jobs = 3
[table]
columns = ["top1"]
)",
                                           "s.toml");
  EXPECT_EQ(sweep.name, "t");
  EXPECT_EQ(sweep.title, "t");
  ASSERT_EQ(sweep.variants.size(), 2U);
  EXPECT_EQ(sweep.variants[1].from, "dense");
  EXPECT_EQ(sweep.variants[1].teacher, "dense");
  EXPECT_EQ(sweep.variants[1].run.find("from_weights")->as_string(), "ema");
  EXPECT_EQ(sweep.variants[1].run.find("label"), nullptr);
  ASSERT_EQ(sweep.axes.size(), 2U);
  EXPECT_EQ(sweep.axes[0].path, "optimizer.lr");
  EXPECT_EQ(sweep.axes[1].path, "tome.r");
  EXPECT_EQ(sweep.seeds, (std::vector<std::uint64_t>{5, 3}));
  EXPECT_EQ(sweep.launch.ranks, 2);
  EXPECT_EQ(sweep.launch.jobs, 3);
  EXPECT_NE(sweep.table.find("columns"), nullptr);
}

TEST(SweepSpec, SeedsCountFromFirst) {
  const SweepSpec sweep = parse_sweep_text(
      kHead + "[[variant]]\nlabel = \"a\"\n[seeds]\ncount = 2\nfirst = 7\n", "s.toml");
  EXPECT_EQ(sweep.seeds, (std::vector<std::uint64_t>{7, 8}));
}

TEST(SweepSpec, OverridesReachRunAndSections) {
  const SweepSpec sweep =
      parse_sweep_text(kHead + "[[variant]]\nlabel = \"a\"\n", "s.toml",
                       {"epochs=3", "model.depth=2", "launch.ranks=4", "seeds.count=1"});
  EXPECT_EQ(sweep.run.find_path("epochs")->as_int(), 3);
  EXPECT_EQ(sweep.run.find_path("model.depth")->as_int(), 2);
  EXPECT_EQ(sweep.launch.ranks, 4);
  EXPECT_EQ(sweep.seeds.size(), 1U);
}

TEST(SweepSpec, UnknownKeyNamesPlaceAndNeighbour) {
  const std::string message = error_of(kHead + "[[variant]]\nlabel = \"a\"\n[lanch]\nranks = 2\n");
  EXPECT_NE(message.find("s.toml:7:"), std::string::npos) << message;
  EXPECT_NE(message.find("did you mean \"launch\""), std::string::npos) << message;
}

TEST(SweepSpec, UnknownLaunchKeyIsAnError) {
  const std::string message = error_of(kHead + "[[variant]]\nlabel = \"a\"\n[launch]\nrank = 2\n");
  EXPECT_NE(message.find("s.toml:8:1"), std::string::npos) << message;
  EXPECT_NE(message.find("\"ranks\""), std::string::npos) << message;
}

TEST(SweepSpec, WrongTypeAndRangeAreErrors) {
  EXPECT_NE(error_of(kHead + "[[variant]]\nlabel=\"a\"\n[launch]\nranks = 0\n").find("s.toml:8:"),
            std::string::npos);
  EXPECT_NE(error_of(kHead + "[[variant]]\nlabel = 3\n").find("s.toml:6:"), std::string::npos);
}

TEST(SweepSpec, UnknownParentIsAnErrorWithSuggestion) {
  const std::string message = error_of(
      kHead + "[[variant]]\nlabel = \"dense\"\n[[variant]]\nlabel=\"b\"\nfrom=\"dence\"\n");
  EXPECT_NE(message.find("s.toml:7:"), std::string::npos) << message;
  EXPECT_NE(message.find("did you mean \"dense\""), std::string::npos) << message;
}

TEST(SweepSpec, CycleOfParentsIsAnError) {
  const std::string message = error_of(kHead +
                                       "[[variant]]\nlabel = \"a\"\nfrom = \"b\"\n"
                                       "[[variant]]\nlabel = \"b\"\nteacher = \"a\"\n");
  EXPECT_NE(message.find("cycle: a <- b <- a"), std::string::npos) << message;
}

TEST(SweepSpec, DuplicateLabelIsAnError) {
  const std::string message =
      error_of(kHead + "[[variant]]\nlabel = \"a\"\n[[variant]]\nlabel = \"a\"\n");
  EXPECT_NE(message.find("taken by the variant at s.toml:5:"), std::string::npos) << message;
}

TEST(SweepSpec, MethodsOfRunAreRefused) {
  const std::string message =
      error_of("name=\"t\"\n[run]\nmethods = []\n[[variant]]\nlabel = \"a\"\n");
  EXPECT_NE(message.find("s.toml:3:"), std::string::npos) << message;
  EXPECT_NE(message.find("[[variant]]"), std::string::npos) << message;
}

TEST(SweepSpec, NoVariantIsAnError) {
  EXPECT_NE(error_of(kHead).find("at least one [[variant]]"), std::string::npos);
}

TEST(SweepSpec, RepeatedSeedOrAxisValueIsAnError) {
  const std::string variant = kHead + "[[variant]]\nlabel = \"a\"\n";
  EXPECT_NE(error_of(variant + "[seeds]\nlist = [1, 1]\n").find("twice"), std::string::npos);
  EXPECT_NE(error_of(variant + "[axes]\nepochs = [1, 1]\n").find("twice"), std::string::npos);
}

TEST(SweepSpec, ListAndCountOfSeedsExcludeEachOther) {
  EXPECT_NE(error_of(kHead + "[[variant]]\nlabel = \"a\"\n[seeds]\nlist = [1]\ncount = 2\n")
                .find("either list"),
            std::string::npos);
}

TEST(SweepSpec, MissingFileIsNamed) {
  try {
    parse_sweep("/nonexistent/x.toml");
    FAIL();
  } catch (const SpecError& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/x.toml"), std::string::npos);
  }
}

}  // namespace
}  // namespace ablate
