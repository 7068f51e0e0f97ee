#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/files.h"
#include "runner/core/schedule.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// docs/recipes.md: its blocks are run tables that a user copies.

namespace ablate::test {
namespace {

/// What stands between ```toml and ``` in the order of the page.
std::vector<std::string> documented_tables() {
  const std::string page = read_file(source_root() / "docs/recipes.md");
  constexpr std::string_view kBegin = "```toml\n", kEnd = "```";
  std::vector<std::string> tables;
  for (std::size_t at = page.find(kBegin); at != std::string::npos; at = page.find(kBegin, at)) {
    at += kBegin.size();
    tables.push_back(page.substr(at, page.find(kEnd, at) - at));
  }
  return tables;
}

/// Resolves a table on generated data instead of the real set, and on files of no weights.
ResolvedRun resolve_documented(const std::string& toml, const TempFolder& folder) {
  Value table = parse_toml(toml, "recipes.md");
  const bool dense = table.find("dataset")->as_string() == "ade20k";
  table.set_path("dataset", Value::Table{{"name", dense ? "synthetic_segmentation" : "synthetic"},
                                         {"train_size", std::int64_t{2048}}});
  std::ofstream(folder / "w.safetensors") << "weights";
  for (const char* weights : {"init.weights", "distillation.teacher.weights"}) {
    if (table.find_path(weights)) {
      table.set_path(weights, Value((folder / "w.safetensors").string()));
    }
  }
  return resolve_run(table, {}, {}, 1);
}

TEST(Recipes, OfThePageAreAccepted) {
  const TempFolder folder;
  const auto tables = documented_tables();
  EXPECT_EQ(tables.size(), 7U);
  for (const std::string& table : tables) {
    EXPECT_NO_THROW(resolve_documented(table, folder)) << table;
  }
}

const Value& setting_of(const RunSpec& spec, Component RunSpec::*part, const char* key) {
  const Value* value = (spec.*part).params.find(key);
  ABLATE_CHECK(value, key);
  return *value;
}

/// The published values of DeiT's recipe, as they reach the spec.
TEST(Recipes, OfDeitHaveThePublishedValues) {
  const TempFolder folder;
  const RunSpec spec = resolve_documented(documented_tables().at(0), folder).spec;
  const std::map<std::string, double> augmentation = {
      {"image_size", 224},  {"flip", 0.5},      {"erasing", 0.25},    {"mixup", 0.8},
      {"cutmix", 1.0},      {"mix_prob", 1},    {"switch_prob", 0.5}, {"repeated", 3},
      {"eval_resize", 256}, {"crop_pct", 0.875}};
  for (const auto& [key, value] : augmentation) {
    EXPECT_EQ(setting_of(spec, &RunSpec::augmentation, key.c_str()).as_double(), value) << key;
  }
  const std::map<std::string, std::string> words = {{"crop", "resized"},
                                                    {"interpolation", "bicubic"},
                                                    {"randaugment", "rand-m9-mstd0.5-inc1"},
                                                    {"erasing_mode", "pixel"}};
  for (const auto& [key, value] : words) {
    EXPECT_EQ(setting_of(spec, &RunSpec::augmentation, key.c_str()).as_string(), value) << key;
  }
  EXPECT_EQ(setting_of(spec, &RunSpec::augmentation, "scale").canonical(), "[0.08,1.0]");
  EXPECT_EQ(setting_of(spec, &RunSpec::task, "label_smoothing").as_double(), 0.1);
  EXPECT_EQ(setting_of(spec, &RunSpec::optimizer, "beta2").as_double(), 0.999);
  EXPECT_EQ(setting_of(spec, &RunSpec::optimizer, "eps").as_double(), 1e-8);
  EXPECT_EQ(setting_of(spec, &RunSpec::optimizer, "weight_decay").as_double(), 0.05);
  EXPECT_EQ(options_of(spec).ema_decay, 0.99996);
  EXPECT_EQ(options_of(spec).clip_norm, 0);
}

/// An epoch of the whole training set has 1251 steps, and the rates are those of the training code.
TEST(Recipes, OfDeitHaveThePublishedLength) {
  const TempFolder folder;
  const RunSpec spec = resolve_documented(documented_tables().at(0), folder).spec;
  const std::int64_t steps = 1'281'167 / spec.global_batch();
  EXPECT_EQ(steps, 1251);
  Params params(spec.schedule.params, "schedule");
  const Schedule schedule(read_schedule(spec.schedule.name, params),
                          setting_of(spec, &RunSpec::optimizer, "lr").as_double(),
                          options_of(spec).length(steps));
  EXPECT_NEAR(schedule.lr(1251), 1e-6, 1e-16);
  EXPECT_NEAR(schedule.lr(6 * 1251), 9.9932161970e-4, 1e-13);
  EXPECT_NEAR(schedule.lr(375'299), 1.0108561680e-5, 1e-14);
}

}  // namespace
}  // namespace ablate::test
