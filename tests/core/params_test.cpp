#include "runner/core/params.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/registry.h"
#include "tests/core/expect_error.h"

namespace ablate {
namespace {

using test::message_of;

constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Value table(const std::string& text) { return parse_toml(text, "sweep.toml"); }

TEST(Params, MissingKeysTakeTheirDefaultsAndAreRecorded) {
  const Value empty = table("");
  Params params(empty, "methods.tome");
  EXPECT_EQ(params.integer("r", 4, 0, 100, "tokens merged in a block"), 4);
  EXPECT_EQ(params.number("ratio", 0.5, 0, 1, "share"), 0.5);
  EXPECT_TRUE(params.boolean("prop_attn", true, "proportional attention"));
  EXPECT_EQ(params.text("label", "x", "a label"), "x");
  EXPECT_EQ(params.choice("metric", "keys", {"keys", "features"}, "similarity of"), "keys");
  EXPECT_EQ(params.integers("blocks", {1, 2}, 0, kAny, "which"), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(params.numbers("betas", {0.9, 0.999}, 0, 1, "decay"),
            (std::vector<double>{0.9, 0.999}));
  params.finish();
  EXPECT_EQ(params.resolved().canonical(),
            R"({"betas":[0.9,0.999],"blocks":[1,2],"label":"x","metric":"keys",)"
            R"("prop_attn":true,"r":4,"ratio":0.5})");
}

TEST(Params, GivenKeysWin) {
  const Value given = table(
      "r = 7\nratio = 1\nprop_attn = false\nlabel = 'y'\nmetric = 'features'\nblocks = []\n"
      "betas = [1, 0.5]");
  Params params(given, "methods.tome");
  EXPECT_EQ(params.integer("r", 4, 0, 100, ""), 7);
  EXPECT_EQ(params.number("ratio", 0.5, 0, 1, ""), 1.0);
  EXPECT_FALSE(params.boolean("prop_attn", true, ""));
  EXPECT_EQ(params.text("label", "x", ""), "y");
  EXPECT_EQ(params.choice("metric", "keys", {"keys", "features"}, ""), "features");
  EXPECT_TRUE(params.integers("blocks", {1, 2}, 0, kAny, "").empty());
  EXPECT_EQ(params.numbers("betas", {}, 0, 1, ""), (std::vector<double>{1, 0.5}));
  params.finish();
  // An integer given for a number is the number: equal settings have equal identities.
  EXPECT_TRUE(params.resolved().find("ratio")->is_double());
}

TEST(Params, WrongTypesAndBoundsNamePlaceAndWhatIsAccepted) {
  const Value given = table("r = 200\nratio = 'high'\nflag = 1\nmetric = 'keyz'\nl = [1, -2]\n");
  Params params(given, "methods.tome");
  EXPECT_EQ(message_of<SpecError>([&] { params.integer("r", 4, 0, 100, ""); }),
            "sweep.toml:1:1: methods.tome.r: found 200, accepted: an integer in [0, 100]");
  EXPECT_EQ(message_of<SpecError>([&] { params.number("ratio", 1, 0, kInfinity, ""); }),
            "sweep.toml:2:1: methods.tome.ratio: found \"high\", accepted: a number >= 0");
  EXPECT_EQ(message_of<SpecError>([&] { params.boolean("flag", false, ""); }),
            "sweep.toml:3:1: methods.tome.flag: found 1, accepted: true or false");
  EXPECT_EQ(
      message_of<SpecError>([&] {
        params.choice("metric", "keys", {"keys", "x"}, "");
      }),
      "sweep.toml:4:1: methods.tome.metric: found \"keyz\", accepted: one of: keys, x (did you "
      "mean \"keys\"?)");
  EXPECT_EQ(message_of<SpecError>([&] { params.integers("l", {}, 0, kAny, ""); }),
            "sweep.toml:5:1: methods.tome.l: found -2, accepted: an integer >= 0");
}

TEST(Params, ABoundIsShownInFull) {
  const Value table = parse_toml("decay = 1.0", "f.toml");
  Params params(table, "run");
  const std::string message =
      message_of<SpecError>([&] { params.number("decay", 0.0, 0.0, 0.9999999, ""); });
  EXPECT_NE(message.find("in [0, 0.9999999]"), std::string::npos) << message;
}

TEST(Params, AFloatIsNoInteger) {
  const Value given = table("r = 4.0");
  Params params(given, "m");
  EXPECT_THROW(params.integer("r", 4, 0, 100, ""), SpecError);
}

TEST(Params, RequiredKeysShowTheirHelpWhenMissing) {
  const Value given = table("lr = 0.1\n");
  Params params(given, "optimizer");
  EXPECT_EQ(params.required_number("lr", 0, 1, "learning rate"), 0.1);
  EXPECT_EQ(message_of<SpecError>([&] { params.required_text("name", "which optimizer"); }),
            "sweep.toml:1:1: optimizer.name: is required: which optimizer; accepted: string");
  EXPECT_EQ(message_of<SpecError>([&] { params.required_integer("n", 1, 9, "count"); }),
            "sweep.toml:1:1: optimizer.n: is required: count; accepted: int in [1, 9]");
}

TEST(Params, UnreadKeysAreErrorsWithTheNearestKnownKey) {
  const Value given = table("r = 4\nprop_atn = true\n");
  Params params(given, "methods.tome");
  params.integer("r", 4, 0, 100, "");
  params.boolean("prop_attn", true, "");
  EXPECT_EQ(message_of<SpecError>([&] { params.finish(); }),
            "sweep.toml:2:1: methods.tome.prop_atn: unknown key (did you mean \"prop_attn\"?)");
}

TEST(Params, HelpTellsEveryReadInOrder) {
  const Value empty = table("");
  Params params(empty, "m");
  params.number("lr", 1e-3, 0, kInfinity, "learning rate");
  params.choice("per", "step", {"step", "epoch"}, "grain");
  ASSERT_EQ(params.help().size(), 2U);
  EXPECT_EQ(params.help()[0].key, "lr");
  EXPECT_EQ(params.help()[0].type, "float");
  EXPECT_EQ(params.help()[0].default_value, "0.001");
  EXPECT_EQ(params.help()[0].bounds, ">= 0");
  EXPECT_EQ(params.help()[1].default_value, "\"step\"");
  EXPECT_EQ(params.help()[1].bounds, "one of: step, epoch");
}

TEST(Params, NestedPartsAreReadByWhoeverResolvesThem) {
  const Value given = table("inner = { a = 1 }\n");
  Params params(given, "outer");
  EXPECT_TRUE(params.has("inner"));
  const Value* raw = params.raw("inner", "a nested table");
  ASSERT_NE(raw, nullptr);
  params.finish();
  EXPECT_TRUE(params.resolved().as_table().empty());
  params.record("inner", *raw);
  EXPECT_EQ(params.resolved().canonical(), R"({"inner":{"a":1}})");
  EXPECT_EQ(params.raw("other", ""), nullptr);
}

TEST(Params, OurOwnMistakesAreBugs) {
  const Value empty = table("");
  Params params(empty, "m");
  params.integer("r", 4, 0, 100, "");
  EXPECT_THROW(params.integer("r", 4, 0, 100, ""), BugError);
  EXPECT_THROW(params.integer("s", 101, 0, 100, ""), BugError);
  EXPECT_THROW(params.choice("c", "x", {"a"}, ""), BugError);
}

TEST(Params, OnlyTablesHaveParams) {
  const Value given = table("methods = 3");
  EXPECT_EQ(message_of<SpecError>([&] { Params(*given.find("methods"), "methods"); }),
            "sweep.toml:1:1: methods: found 3, accepted: a table");
}

struct ToyInfo {
  static constexpr const char* kind = "toy";
  std::string name;
};

TEST(Registry, FindsSuggestsAndRefusesDoubles) {
  using Toys = Registry<ToyInfo>;
  const Toys::Add ball(ToyInfo{"ball"});
  const Toys::Add train(ToyInfo{"train"});
  EXPECT_EQ(Toys::names(), (std::vector<std::string>{"ball", "train"}));
  EXPECT_EQ(Toys::get("ball").name, "ball");
  EXPECT_EQ(message_of<SpecError>([] { Toys::get("bal", "f.toml:1:2"); }),
            "f.toml:1:2: unknown toy \"bal\" (did you mean \"ball\"?)");
  EXPECT_THROW(Toys::Add(ToyInfo{"ball"}), BugError);
}

TEST(Check, NamesPlaceConditionAndMessage) {
  const std::string message = message_of<BugError>([] { ABLATE_CHECK(1 > 2, "n = ", 3); });
  EXPECT_NE(message.find("params_test.cpp:"), std::string::npos) << message;
  EXPECT_NE(message.find("check failed: 1 > 2: n = 3"), std::string::npos) << message;
}

TEST(Params, PrefersAnotherDefaultWhereItIsTold) {
  const Value empty = Value::Table{};
  Params params(empty, "part");
  params.prefer("size", 512);
  EXPECT_EQ(params.integer("size", 224, 1, 4096, "side"), 512);
  EXPECT_EQ(params.integer("other", 224, 1, 4096, "side"), 224);
  EXPECT_EQ(params.resolved().find("size")->as_int(), 512);
  EXPECT_EQ(params.help().front().default_value, "512");
  const Value given = Value::Table{{"size", std::int64_t{64}}};
  Params told(given, "part");
  told.prefer("size", 512);
  EXPECT_EQ(told.integer("size", 224, 1, 4096, "side"), 64);
}

}  // namespace
}  // namespace ablate
