#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/run_paths.h"
#include "runner/core/text.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"
#include "tests/end_to_end/weights_file.h"
#include "tests/end_to_end/workbench.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::finished_sweep;
using test::kTinyRuns;
using test::kTinySweep;
using test::Workbench;

/// What a user does with a sweep, on a copy of a finished one.
class UserPath : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
  }
  CapturedRun ablate(std::vector<std::string> arguments) const {
    return bench_.ablate(std::move(arguments));
  }
  /// Run ids of the sweep by "LABEL seed N".
  std::map<std::string, std::string> run_ids() const {
    std::map<std::string, std::string> ids;
    const std::string lines = bench_.query(
        "SELECT run_uid, label || ' seed ' || seed FROM sweep_run JOIN run USING(run_id) JOIN "
        "sweep_variant USING(sweep_id, variant_id)");
    for (const std::string& line : split(lines, '\n')) {
      const std::size_t comma = line.find(',');
      if (comma == std::string::npos) continue;
      std::string name = line.substr(comma + 1);
      std::erase(name, '"');
      ids[name] = line.substr(0, comma);
    }
    return ids;
  }
  double final_value(const std::string& run, const std::string& metric) const {
    return std::stod(bench_.query(
        "SELECT value FROM final JOIN metric USING(metric_id) JOIN run USING(run_id) WHERE "
        "run_uid = '" +
        run_ids().at(run) + "' AND name = '" + metric + "'"));
  }

  test::SweepCopy copy_;
  const Workbench& bench_ = copy_.bench();
};

std::string edited(std::string text, const std::string& part, const std::string& replacement) {
  return text.replace(text.find(part), part.size(), replacement);
}

TEST_F(UserPath, TheDryRunTellsHoursFinishTimeAndDiskAndLeavesNothing) {
  const test::TempFolder folder;
  const Workbench fresh(folder.path());
  const CapturedRun plan =
      fresh.ablate({"sweep", fresh.write("tiny.toml", kTinySweep), "--dry-run"});
  EXPECT_EQ(plan.status.code, 0) << plan.errors;
  for (const char* part :
       {"8 runs: 0 done, 8 to do", "time:", "of work, done about", "disk:", "of weights that stay",
        "free in", "params/M", "images seen", "a guess", "nose: "}) {
    EXPECT_TRUE(contains(plan.output, part)) << part << " in\n" << plan.output;
  }
  EXPECT_FALSE(fs::exists(fresh.out()));
  // With a finished sweep at hand the times of new runs are no guesses.
  const CapturedRun more = ablate({"sweep", "tiny.toml", "--dry-run", "--seeds", "3"});
  EXPECT_TRUE(contains(more.output, "12 runs: 8 done, 4 to do")) << more.output;
  EXPECT_TRUE(contains(more.output, "(measured)")) << more.output;
}

TEST_F(UserPath, ASecondStartRunsNothingAndPrintsTheSameTable) {
  const std::string& table = finished_sweep().run.output;
  for (const char* part : {"A tiny sweep", "dense, same extra epochs", "NOSE 1/2 + ToMe", "±"}) {
    EXPECT_TRUE(contains(table, part)) << part << " in\n" << table;
  }
  const CapturedRun second = ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(second.status.code, 0) << second.errors;
  EXPECT_EQ(second.output, table);
  EXPECT_EQ(second.errors, "");
  EXPECT_EQ(ablate({"table", "tiny.toml"}).output, table);
  EXPECT_EQ(bench_.query("SELECT count(*), max(n) FROM attempt"), cat(kTinyRuns, ",1\n"));
  test::expect_sound_records(bench_.out());
  EXPECT_TRUE(contains(ablate({"status"}).output, "tiny: 8 done"));
}

TEST_F(UserPath, CostsFollowFromTheStructure) {
  // An attention layer and its norm at width 16: 2 norm vectors, qkv and projection with biases.
  constexpr double kLayer = 2 * 16 + (3 * 16 * 16 + 3 * 16) + (16 * 16 + 16);
  const double dense = final_value("dense seed 0", "params");
  EXPECT_EQ(final_value("dense, same extra epochs seed 0", "params"), dense);
  EXPECT_EQ(final_value("NOSE 1/2 seed 0", "params"), dense - kLayer);
  EXPECT_EQ(final_value("NOSE 1/2 + ToMe seed 0", "params"), dense - kLayer);
  EXPECT_LT(final_value("NOSE 1/2 seed 0", "macs"), final_value("dense seed 0", "macs"));
  EXPECT_LT(final_value("NOSE 1/2 + ToMe seed 0", "macs"), final_value("NOSE 1/2 seed 0", "macs"));
  EXPECT_EQ(final_value("NOSE 1/2 + ToMe seed 0", "tokens_final"), 16 + 1 - 2);
}

TEST_F(UserPath, MoreSeedsTopUpAndLeaveTheOthersAlone) {
  const auto before = test::read_results(bench_.out());
  const CapturedRun more = ablate({"sweep", "tiny.toml", "--seeds", "3"});
  EXPECT_EQ(more.status.code, 0) << more.errors;
  EXPECT_EQ(test::count_of(more.errors, "started  "), 4U) << more.errors;
  EXPECT_TRUE(contains(more.output, "(3)")) << more.output;
  auto after = test::read_results(bench_.out());
  EXPECT_EQ(after.size(), before.size() + 4);
  std::erase_if(after, [&](const auto& entry) { return !before.contains(entry.first); });
  test::expect_equal_results(before, after);
}

TEST_F(UserPath, EditingOneVariantLeavesTheOtherIdsAlone) {
  const auto before = run_ids();
  ASSERT_EQ(before.size(), static_cast<std::size_t>(kTinyRuns));
  bench_.write("tiny.toml", edited(kTinySweep, "r = 2", "r = 3"));
  const CapturedRun run = ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(run.status.code, 0) << run.errors;
  EXPECT_EQ(test::count_of(run.errors, "started  NOSE 1/2 + ToMe seed"), 2U) << run.errors;
  EXPECT_EQ(test::count_of(run.errors, "started  "), 2U) << run.errors;
  for (const auto& [name, id] : run_ids()) {
    EXPECT_EQ(before.at(name) == id, !contains(name, "ToMe")) << name;
  }
  // Back again: everything is known.
  bench_.write("tiny.toml", kTinySweep);
  const CapturedRun back = ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(back.output, finished_sweep().run.output);
  EXPECT_FALSE(contains(back.errors, "started")) << back.errors;
}

TEST_F(UserPath, ShowTellsLineageEditsCurvesEnvironmentAndLog) {
  const CapturedRun show = ablate({"show", "NOSE 1/2 seed 1"});
  EXPECT_EQ(show.status.code, 0) << show.errors;
  for (const char* part :
       {"NOSE 1/2 seed 1  done", "top1", "train/loss", "parent", "dense seed 1", "NOSE 1/2 + ToMe",
        "remove_mixer", "LibTorch", "epoch 2 of 2", "methods.nose.samples", "images seen"}) {
    EXPECT_TRUE(contains(show.output, part)) << part << " in\n" << show.output;
  }
}

TEST_F(UserPath, QueryAnswersInThreeFormats) {
  const std::string sql =
      "SELECT label, round(mean, 6) AS mean, n FROM v_cell JOIN sweep_variant USING(variant_id) "
      "JOIN metric USING(metric_id) WHERE name = 'top1' ORDER BY position";
  const CapturedRun answer = ablate({"query", sql, "--format", "json"});
  ASSERT_EQ(answer.status.code, 0) << answer.errors;
  const auto rows = nlohmann::json::parse(answer.output);
  ASSERT_EQ(rows.size(), 4U);
  const double mean =
      (final_value("dense seed 0", "top1") + final_value("dense seed 1", "top1")) / 2;
  EXPECT_EQ(rows[0].at("label"), "dense");
  EXPECT_NEAR(rows[0].at("mean").get<double>(), mean, 1e-6);
  EXPECT_EQ(rows[0].at("n"), 2);
  const std::string csv = ablate({"query", sql, "--format", "csv"}).output;
  EXPECT_TRUE(csv.starts_with("label,mean,n\ndense,")) << csv;
  EXPECT_TRUE(contains(csv, "\"dense, same extra epochs\",")) << csv;
  EXPECT_EQ(test::count_of(csv, "\n"), 5U);
  EXPECT_TRUE(contains(ablate({"query", sql}).output, "NOSE 1/2 + ToMe"));
}

/// Names of timm's VisionTransformer of that depth, without the attention of one block.
std::set<std::string> timm_names(int depth, int without_attention) {
  std::set<std::string> names = {"cls_token",   "pos_embed", "patch_embed.proj.weight",
                                 "norm.weight", "norm.bias", "patch_embed.proj.bias",
                                 "head.weight", "head.bias"};
  for (int block = 0; block < depth; ++block) {
    for (const char* part : {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}) {
      const bool attention = std::string(part) == "norm1" || std::string(part).starts_with("attn");
      if (block == without_attention && attention) continue;
      for (const char* leaf : {"weight", "bias"}) {
        names.insert(cat("blocks.", block, ".", part, ".", leaf));
      }
    }
  }
  return names;
}

TEST_F(UserPath, ExportedWeightsCarryTheNamesOfTimm) {
  for (const char* run : {"dense seed 0", "NOSE 1/2 seed 0"}) {
    const CapturedRun done = ablate({"export", run, "--to", "exported", "--force"});
    ASSERT_EQ(done.status.code, 0) << done.errors;
    const auto structure = nlohmann::json::parse(read_file(bench_ / "exported/structure.json"));
    int removed = -1;
    for (const auto& edit : structure.at("edits")) {
      if (edit.at("edit") == "remove_mixer") removed = edit.at("block");
    }
    EXPECT_EQ(removed >= 0, contains(run, "NOSE")) << run;
    std::set<std::string> names;
    std::int64_t count = 0;
    for (const auto& [name, tensor] : test::read_weights(bench_ / "exported/model.safetensors")) {
      EXPECT_EQ(tensor.dtype, "F32") << name;
      names.insert(name);
      count += static_cast<std::int64_t>(tensor.values<float>().size());
    }
    EXPECT_EQ(names, timm_names(2, removed));
    EXPECT_EQ(static_cast<double>(count), final_value(run, "params"));
    EXPECT_TRUE(contains(read_file(bench_ / "exported/curves.csv"), "train/loss,-1,7,"));
  }
}

TEST_F(UserPath, TwoMachinesMergeIntoOneTable) {
  const CapturedRun other =
      ablate({"sweep", "tiny.toml", "seeds.first=7", "--seeds", "1", "--out", "other"});
  ASSERT_EQ(other.status.code, 0) << other.errors;
  const CapturedRun merge =
      ablate({"merge", "out/results.db", "other/results.db", "--db", "all.db"});
  EXPECT_EQ(merge.status.code, 0) << merge.errors;
  EXPECT_TRUE(contains(merge.output, "8 new runs")) << merge.output;
  EXPECT_TRUE(contains(merge.output, "4 new runs")) << merge.output;
  const CapturedRun table = ablate({"table", "tiny.toml", "--db", "all.db"});
  EXPECT_EQ(table.status.code, 0) << table.errors;
  EXPECT_TRUE(contains(table.output, "(3)")) << table.output;
  const CapturedRun again = ablate({"merge", "other/results.db", "--db", "all.db"});
  EXPECT_TRUE(contains(again.output, "0 new runs, 0 further along, 4 known")) << again.output;
  EXPECT_EQ(ablate({"table", "tiny.toml", "--db", "all.db"}).output, table.output);
  std::string numbers;
  for (const auto& [run, result] : test::read_results(bench_.out())) numbers += result.numbers;
  std::string merged;
  for (const auto& [run, result] : test::read_results(bench_.out(), bench_ / "all.db")) {
    if (fs::exists(RunPaths(bench_.out(), run).directory)) merged += result.numbers;
  }
  EXPECT_EQ(merged, numbers);
}

TEST_F(UserPath, ADivergedRunIsNeverTriedAgainByItself) {
  // Weights that decay by a factor of -9999 a step.
  bench_.write("tiny.toml", kTinySweep + R"([[variant]]
label = "wild"
optimizer = { name = "sgd", lr = 1000, weight_decay = 10 }
[[variant]]
label = "child"
from = "wild"
)");
  const CapturedRun first = ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(first.status.code, 1) << first.errors;
  EXPECT_TRUE(contains(first.errors, "no result: wild seed 0: diverged at step")) << first.errors;
  EXPECT_TRUE(contains(first.errors, "begins from wild seed 0")) << first.errors;
  EXPECT_TRUE(contains(first.output, "diverged")) << first.output;
  const std::string attempts =
      "SELECT state, count(*), max(n) FROM run JOIN sweep_variant USING(variant_id) LEFT JOIN "
      "attempt USING(run_id) WHERE label IN ('wild', 'child') GROUP BY state ORDER BY state";
  EXPECT_EQ(bench_.query(attempts), "diverged,2,1\nplanned,2,\n");
  EXPECT_EQ(ablate({"sweep", "tiny.toml"}).status.code, 1);
  EXPECT_EQ(bench_.query(attempts), "diverged,2,1\nplanned,2,\n");
  EXPECT_TRUE(contains(ablate({"retry", "--diverged"}).output, "2 runs"));
  EXPECT_EQ(ablate({"sweep", "tiny.toml"}).status.code, 1);
  EXPECT_EQ(bench_.query(attempts), "diverged,4,2\nplanned,2,\n");
  EXPECT_TRUE(contains(ablate({"skip", "wild seed 0"}).output, "is skipped"));
  EXPECT_TRUE(contains(ablate({"skip", "dense seed 0"}).output, "left alone"));
  const CapturedRun without = ablate({"sweep", "tiny.toml"});
  EXPECT_TRUE(contains(without.errors, "wild seed 0: skipped on request")) << without.errors;
}

TEST_F(UserPath, StorageThatIsFreedIsMissedOnlyByWhoeverNeedsIt) {
  // The copied database still names the spools of the folder it came from: not ours to remove.
  EXPECT_FALSE(contains(ablate({"gc", "--spools"}).output, ".spool"));
  fs::remove(bench_.out() / "results.db");
  ASSERT_EQ(ablate({"ingest"}).status.code, 0);
  ASSERT_EQ(ablate({"sweep", "tiny.toml"}).output, finished_sweep().run.output);
  const CapturedRun dry = ablate({"gc", "--dry-run", "--weights", "--spools"});
  EXPECT_EQ(dry.status.code, 0) << dry.errors;
  EXPECT_EQ(test::count_of(dry.output, "model.safetensors"), 8U) << dry.output;
  EXPECT_EQ(test::count_of(dry.output, bench_.out().string() + "/runs/"), 16U) << dry.output;
  EXPECT_EQ(test::count_of(dry.output, "rank0.spool"), 8U) << dry.output;
  EXPECT_TRUE(contains(dry.output, "would free")) << dry.output;
  test::expect_equal_results(test::read_results(finished_sweep().bench.out()),
                             test::read_results(bench_.out()));
  EXPECT_EQ(ablate({"gc", "--weights", "--spools"}).status.code, 0);
  EXPECT_EQ(ablate({"sweep", "tiny.toml"}).output, finished_sweep().run.output);
  bench_.write("tiny.toml", edited(kTinySweep, "r = 2", "r = 3"));
  const CapturedRun child = ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(child.status.code, 1);
  EXPECT_TRUE(contains(child.errors, "model.safetensors")) << child.errors;
}

TEST_F(UserPath, MistakesAreFoundBeforeAnythingStarts) {
  const struct {
    const char *part, *replacement, *place, *hint;
  } mistakes[] = {
      {"lr = 1e-2", "lrr = 1e-2", "tiny.toml:8:", "\"lr\""},
      {"\"nose\"", "\"nosse\"", "tiny.toml:17:", "\"nose\""},
      {"global_batch = 16", "global_batch = 17\n#", "tiny.toml:7:", "16"},
      {"r = 2", "r = 0", "tiny.toml:22:", "1"},
  };
  for (const auto& mistake : mistakes) {
    const test::TempFolder folder;
    const Workbench fresh(folder.path());
    fresh.write("tiny.toml", edited(kTinySweep, mistake.part, mistake.replacement));
    const CapturedRun run = fresh.ablate({"sweep", "tiny.toml", "launch.ranks=2"});
    EXPECT_EQ(run.status.code, 2) << mistake.part;
    EXPECT_TRUE(contains(run.errors, mistake.place)) << run.errors;
    EXPECT_TRUE(contains(run.errors, mistake.hint)) << run.errors;
    EXPECT_FALSE(fs::exists(fresh.out() / "runs")) << mistake.part;
  }
}

}  // namespace
}  // namespace ablate
