#include "sweeps/expand.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

const std::string kFileHead = R"(name = "t"
[run]
dataset = { name = "synthetic", classes = 4 }
model = { name = "vit" }
epochs = 10
optimizer = { name = "adamw", lr = 1e-3 }
)";

std::vector<Draft> drafts_of(const std::string& rest) {
  return expand(parse_sweep_text(kFileHead + rest, "s.toml"));
}

std::vector<std::string> labels(const std::vector<Draft>& drafts) {
  std::vector<std::string> result;
  for (const Draft& draft : drafts) result.push_back(draft.label);
  return result;
}

const std::string kFamily = R"(
[[variant]]
label = "child"
from = "parent"
epochs = 0
methods = [ { name = "tome", r = 1 } ]
[[variant]]
label = "parent"
methods = [ { name = "nose", remove = 5 } ]
[[variant]]
label = "plain"
)";

TEST(Expand, ParentsComeFirstAndRowsKeepTheOrderOfTheFile) {
  const auto drafts = drafts_of(kFamily + "[seeds]\ncount = 1\n");
  EXPECT_EQ(labels(drafts), (std::vector<std::string>{"parent", "child", "plain"}));
  EXPECT_EQ(row_labels(drafts), (std::vector<std::string>{"child", "parent", "plain"}));
  ASSERT_EQ(drafts[1].parents.size(), 1U);
  EXPECT_EQ(drafts[1].parents[0].role, "init");
  EXPECT_EQ(drafts[1].parents[0].draft, 0U);
}

TEST(Expand, ChildHasItsOwnMethodsOnly) {
  const auto drafts = drafts_of(kFamily + "[seeds]\ncount = 1\n");
  const auto& methods = drafts[1].spec.find("methods")->as_array();
  ASSERT_EQ(methods.size(), 1U);
  EXPECT_EQ(methods[0].find("name")->as_string(), "tome");
  EXPECT_EQ(drafts[2].spec.find("methods"), nullptr);
}

TEST(Expand, AxisOfAMethodAppliesWhereTheMethodIs) {
  const auto drafts = drafts_of(kFamily + "[axes]\n\"tome.r\" = [2, 4]\n[seeds]\ncount = 1\n");
  EXPECT_EQ(row_labels(drafts),
            (std::vector<std::string>{"child [tome.r=2]", "child [tome.r=4]", "parent", "plain"}));
  std::set<std::int64_t> values;
  for (const Draft& draft : drafts) {
    if (draft.variant != "child") continue;
    values.insert(draft.spec.find_path("methods.tome.r")->as_int());
    EXPECT_EQ(drafts[draft.parents[0].draft].label, "parent");
  }
  EXPECT_EQ(values, (std::set<std::int64_t>{2, 4}));
}

TEST(Expand, AxisOfAParentMultipliesItsChildrenWhichInheritTheCoordinate) {
  const auto drafts = drafts_of(kFamily +
                                "[axes]\n\"nose.remove\" = [3, 5]\n\"tome.r\" = [2, 4]\n"
                                "[seeds]\ncount = 1\n");
  EXPECT_EQ(drafts.size(), 2U + 4U + 1U);
  for (const Draft& draft : drafts) {
    if (draft.variant != "child") continue;
    EXPECT_EQ(draft.spec.find_path("methods.nose.remove"), nullptr);
    const Draft& parent = drafts[draft.parents[0].draft];
    const auto removed = parent.spec.find_path("methods.nose.remove")->as_int();
    EXPECT_NE(draft.label.find("nose.remove=" + std::to_string(removed)), std::string::npos);
  }
}

TEST(Expand, AxisOfTheRunSparesVariantsThatWriteTheSetting) {
  const auto drafts = drafts_of(kFamily + "[axes]\nepochs = [1, 2]\n[seeds]\ncount = 1\n");
  for (const Draft& draft : drafts) {
    if (draft.variant == "child") {
      EXPECT_EQ(draft.spec.find("epochs")->as_int(), 0);
    }
  }
  // The child is still multiplied: its parent is.
  EXPECT_EQ(drafts.size(), 6U);
}

TEST(Expand, LongFormOfAMethodPath) {
  const auto drafts = drafts_of(kFamily + "[axes]\n\"methods.tome.r\" = [7]\n[seeds]\ncount=1\n");
  EXPECT_EQ(drafts[1].label, "child [methods.tome.r=7]");
  EXPECT_EQ(drafts[1].spec.find_path("methods.tome.r")->as_int(), 7);
}

TEST(Expand, AxisThatAppliesNowhereIsAnError) {
  for (const char* axis : {"\"tomme.r\" = [1]", "\"methods.ela.x\" = [1]"}) {
    try {
      drafts_of(kFamily + "[axes]\n" + axis + "\n");
      FAIL() << axis;
    } catch (const SpecError& error) {
      EXPECT_NE(std::string(error.what()).find("applies nowhere"), std::string::npos);
      EXPECT_EQ(std::string(error.what()).find("s.toml:"), 0U) << error.what();
    }
  }
}

TEST(Expand, SeedsAreBlocksWithTheirOwnParents) {
  const auto drafts = drafts_of(kFamily + "[seeds]\nlist = [4, 9]\n");
  ASSERT_EQ(drafts.size(), 6U);
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    EXPECT_EQ(drafts[i].seed, i < 3 ? 4U : 9U);
    EXPECT_EQ(drafts[i].spec.find("seed")->as_int(), i < 3 ? 4 : 9);
    for (const DraftParent& parent : drafts[i].parents) {
      EXPECT_LT(parent.draft, i);
      EXPECT_EQ(drafts[parent.draft].seed, drafts[i].seed);
    }
  }
}

TEST(Expand, MoreSeedsLeaveTheOthersAlone) {
  const auto few = drafts_of(kFamily + "[seeds]\ncount = 1\n");
  const auto many = drafts_of(kFamily + "[seeds]\ncount = 3\n");
  for (std::size_t i = 0; i < few.size(); ++i) EXPECT_EQ(few[i].spec, many[i].spec);
}

TEST(Expand, DataSetsGetTheirOwnRowsAndFamilies) {
  const auto drafts = expand(parse_sweep_text(R"(name = "t"
datasets = ["cifar10", { name = "cifar100", holdout = 10 }]
[run]
epochs = 1
[[variant]]
label = "a"
[[variant]]
label = "b"
from = "a"
[axes]
dataset.augment = [true]
[seeds]
count = 2
)",
                                              "s.toml"));
  ASSERT_EQ(drafts.size(), 8U);
  EXPECT_EQ(drafts[7].label, "b [dataset.augment=true] [dataset=cifar100]");
  EXPECT_EQ(drafts[7].dataset, "cifar100");
  EXPECT_EQ(drafts[7].spec.find_path("dataset.holdout")->as_int(), 10);
  EXPECT_TRUE(drafts[7].spec.find_path("dataset.augment")->as_bool());
  EXPECT_EQ(drafts[drafts[7].parents[0].draft].dataset, "cifar100");
  EXPECT_EQ(row_labels(drafts).size(), 4U);
}

TEST(Expand, TeacherIsAnEdgeOfItsOwn) {
  const auto drafts = drafts_of(
      "[[variant]]\nlabel=\"s\"\nteacher=\"t\"\n[[variant]]\nlabel=\"t\"\n[seeds]\ncount=1\n");
  ASSERT_EQ(drafts[1].parents.size(), 1U);
  EXPECT_EQ(drafts[1].parents[0].role, "teacher");
}

TEST(Expand, MissingDataSetIsAnError) {
  EXPECT_THROW(
      expand(parse_sweep_text("name=\"t\"\n[run]\nepochs=1\n[[variant]]\nlabel=\"a\"\n", "s")),
      SpecError);
}

TEST(Overlay, MergesTablesKeyByKey) {
  const Value lower = parse_toml("optimizer = { name = \"adamw\", lr = 1.0, wd = 2.0 }\n", "a");
  const Value upper = parse_toml("optimizer = { lr = 3.0 }\nepochs = 1\n", "b");
  const Value merged = overlay(lower, upper);
  EXPECT_EQ(merged.find_path("optimizer.lr")->as_double(), 3.0);
  EXPECT_EQ(merged.find_path("optimizer.wd")->as_double(), 2.0);
  EXPECT_EQ(merged.find_path("epochs")->as_int(), 1);
}

TEST(Overlay, AnotherNameReplacesTheWholeTable) {
  const Value lower = parse_toml("optimizer = { name = \"adamw\", betas = [0.9, 0.99] }\n", "a");
  const Value upper = parse_toml("optimizer = { name = \"sgd\" }\n", "b");
  EXPECT_EQ(overlay(lower, upper).find_path("optimizer.betas"), nullptr);
}

}  // namespace
}  // namespace ablate
