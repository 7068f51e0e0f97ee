#include "runner/core/value.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::message_of;

Value spec() {
  return parse_toml(R"(epochs = 100
optimizer = { name = "adamw", lr = 1e-3 }
methods = [ { name = "nose", remove = 5 },
            { name = "tome", r = 4 } ]
[model]
name = "vit_tiny_patch4_32"
)",
                    "sweep.toml");
}

TEST(Toml, ReadsEveryType) {
  const Value value = parse_toml("i = -3\nx = 2.5\nb = true\ns = \"a\"\nl = [1, 2]\nt.u = 1", "f");
  EXPECT_EQ(value.find("i")->as_int(), -3);
  EXPECT_EQ(value.find("x")->as_double(), 2.5);
  EXPECT_TRUE(value.find("b")->as_bool());
  EXPECT_EQ(value.find("s")->as_string(), "a");
  EXPECT_EQ(value.find("l")->as_array().size(), 2U);
  EXPECT_EQ(value.find_path("t.u")->as_int(), 1);
  EXPECT_EQ(value.find("none"), nullptr);
}

TEST(Toml, RemembersWhereEachValueStands) {
  const Value value = spec();
  EXPECT_EQ(value.find("epochs")->origin().str(), "sweep.toml:1:1");
  EXPECT_EQ(value.find_path("optimizer.lr")->origin().str(), "sweep.toml:2:31");
  EXPECT_EQ(value.find_path("methods.tome")->origin().str(), "sweep.toml:4:13");
  EXPECT_EQ(value.find_path("model")->origin().str(), "sweep.toml:5:2");
  EXPECT_EQ(Value(3).origin().str(), "default");
}

TEST(Toml, SyntaxErrorsNameTheirPlace) {
  const std::string message =
      message_of<SpecError>([] { parse_toml("a = 1\nb = [1,\n", "sweep.toml"); });
  EXPECT_TRUE(message.starts_with("sweep.toml:")) << message;
  const std::string twice =
      message_of<SpecError>([] { parse_toml("a = 1\na = 2\n", "sweep.toml"); });
  EXPECT_TRUE(twice.starts_with("sweep.toml:2:")) << twice;
}

TEST(Toml, RefusesDatesAndNumbersThatAreNotFinite) {
  EXPECT_TRUE(message_of<SpecError>([] {
                parse_toml("a = 1\nday = 2026-01-01", "f.toml");
              }).starts_with("f.toml:2:1: dates"));
  EXPECT_TRUE(
      message_of<SpecError>([] { parse_toml("clip = inf", "f.toml"); }).starts_with("f.toml:1:1:"));
}

TEST(Toml, ReadsFilesAndNamesMissingOnes) {
  const test::TempFolder folder;
  write_file_atomic(folder / "a.toml", "x = 1");
  const Value value = read_toml(folder / "a.toml");
  EXPECT_EQ(value.find("x")->origin().file, (folder / "a.toml").string());
  const std::string message = message_of<SpecError>([&] { read_toml(folder / "b.toml"); });
  EXPECT_NE(message.find("b.toml"), std::string::npos) << message;
  EXPECT_NE(message.find("No such file"), std::string::npos) << message;
}

TEST(Value, WrongTypeNamesOriginAndBothTypes) {
  EXPECT_EQ(message_of<SpecError>([] { spec().find_path("model.name")->as_int(); }),
            "sweep.toml:6:1: expected an integer, found a string");
  EXPECT_EQ(spec().find("epochs")->as_double(), 100.0);
  EXPECT_THROW(spec().find_path("optimizer.lr")->as_int(), SpecError);
}

TEST(Value, SetPathReachesTablesAndMethods) {
  Value value = spec();
  value.set_path("optimizer.lr", 0.5);
  EXPECT_EQ(value.find_path("optimizer.lr")->as_double(), 0.5);
  value.set_path("schedule.warmup.epochs", 5);
  EXPECT_EQ(value.find_path("schedule.warmup.epochs")->as_int(), 5);
  value.set_path("methods.tome.r", 8);
  EXPECT_EQ(value.find("methods")->as_array()[1].find("r")->as_int(), 8);
  value.set_path("tome.r", 2);
  EXPECT_EQ(value.find_path("methods.tome.r")->as_int(), 2);
  EXPECT_EQ(value.find("tome"), nullptr);
}

TEST(Value, SetPathPrefersATopLevelKeyToAMethodOfItsName) {
  Value value = spec();
  value["tome"] = Value::Table{};
  value.set_path("tome.r", 9);
  EXPECT_EQ(value.find("tome")->find("r")->as_int(), 9);
  EXPECT_EQ(value.find_path("methods.tome.r")->as_int(), 4);
}

TEST(Value, SetPathRefusesWhatIsNoTable) {
  Value value = spec();
  const Value one(1, {"command line", 0, 0});
  EXPECT_EQ(message_of<SpecError>([&] { value.set_path("epochs.x", one); }),
            "command line: \"epochs.x\": \"x\" would be inside an integer (sweep.toml:1:1), not a "
            "table");
  EXPECT_EQ(message_of<SpecError>([&] { value.set_path("methods.tone.r", one); }),
            "command line: \"methods.tone.r\": no element is named \"tone\" (did you mean "
            "\"tome\"?)");
  EXPECT_THROW(value.set_path("a..b", one), SpecError);
  EXPECT_THROW(value.set_path("", one), SpecError);
}

TEST(Value, FindPathOfNothingIsNull) {
  const Value value = spec();
  EXPECT_EQ(value.find_path("epochs.x"), nullptr);
  EXPECT_EQ(value.find_path("methods.ela.q"), nullptr);
  EXPECT_EQ(value.find_path("ela.q"), nullptr);
}

TEST(Value, CanonicalTextIsStable) {
  const Value value = parse_toml(
      "z = 1\na = 1.0\nb = 0.1\nc = 1e-5\nd = [true, \"x\\\"y\"]\n[m]\nlr = 3e22\n", "f");
  EXPECT_EQ(value.canonical(),
            R"({"a":1.0,"b":0.1,"c":1e-05,"d":[true,"x\"y"],"m":{"lr":3e+22},"z":1})");
}

TEST(Value, NumbersSurviveTheirCanonicalText) {
  for (const double number : {1.0 / 3, 0.1 + 0.2, 1e300, 5e-324, -0.0, 123456789.125}) {
    const Value back = Value::from_json(nlohmann::json::parse(Value(number).canonical()));
    EXPECT_TRUE(back.is_double());
    EXPECT_EQ(back.as_double(), number);
  }
  const std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(Value::from_json(nlohmann::json::parse(Value(largest).canonical())).as_int(), largest);
}

TEST(Value, NumbersThatAreNotFiniteAreBugs) {
  EXPECT_THROW(Value(std::numeric_limits<double>::infinity()).canonical(), BugError);
}

TEST(Value, JsonThatIsNoSettingIsRefused) {
  EXPECT_THROW(Value::from_json(nullptr), SpecError);
  EXPECT_THROW(Value::from_json(std::uint64_t{1} << 63), SpecError);
}

TEST(Value, AnnotatedJsonKeepsContentAndOrigins) {
  const Value value = spec();
  const Value back = Value::from_annotated_json(value.to_annotated_json());
  EXPECT_EQ(back, value);
  EXPECT_EQ(back.find_path("methods.tome.r")->origin().str(),
            value.find_path("methods.tome.r")->origin().str());
  EXPECT_THROW(Value::from_annotated_json({{"at", "x"}}), SpecError);
}

TEST(Value, EqualityIgnoresOrigins) {
  EXPECT_EQ(parse_toml("a = 1", "x"), parse_toml("\n\na   =   1", "y"));
  EXPECT_FALSE(Value(1) == Value(1.0));
}

TEST(Override, RightSideIsTomlOrABareWord) {
  EXPECT_EQ(parse_override("epochs=3"), (std::pair<std::string, Value>{"epochs", 3}));
  EXPECT_EQ(parse_override("optimizer.lr = 1e-3").second, Value(1e-3));
  EXPECT_EQ(parse_override("optimizer.lr = 1e-3").first, "optimizer.lr");
  EXPECT_EQ(parse_override("ema=true").second, Value(true));
  EXPECT_EQ(parse_override("model.name=vit_tiny").second, Value("vit_tiny"));
  EXPECT_EQ(parse_override("init.weights=/data/w-1.safetensors").second,
            Value("/data/w-1.safetensors"));
  EXPECT_EQ(parse_override("label=\"a = b\"").second, Value("a = b"));
  EXPECT_EQ(parse_override("axes=[1, 2]").second, Value(Value::Array{1, 2}));
  EXPECT_EQ(parse_override("m={name=\"tome\"}").second.find("name")->origin().str(),
            "command line");
}

TEST(Override, MistakesAreNamed) {
  for (const char* wrong : {"epochs", "=3", "epochs=", "label=two words", "x=[1,", "x=1\ny=2"}) {
    const std::string message = message_of<SpecError>([&] { parse_override(wrong); });
    EXPECT_NE(message.find(wrong), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace ablate
