#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "tests/support/gpu.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Whole runs with skipped retrievals: what they leave in records, checkpoints and final weights.

namespace ablate::test {
namespace {

using nlohmann::json;

RunSpec ela_spec(const std::string& settings, const std::vector<std::string>& more = {}) {
  return resolve_table(
      kTinyResNet,
      joined({"methods=[{name=\"ela\"," + settings + "}]", "optimizer.weight_decay=0.1"}, more));
}

std::vector<json> epochs_of(const RunSpec& spec, const std::filesystem::path& out) {
  return events_of(RunPaths(out, spec.id()).spool(1, 0), "ela_epoch");
}

TEST(ElaRun, TellsWhatItMeasuredAndDecided) {
  const TempFolder out;
  const RunSpec spec = ela_spec("q=0.5,patience=1,warmup_epochs=2,freeze_epoch=3", {"epochs=5"});
  const RunRecord record = run_small(spec, out.path());
  const std::vector<json> epochs = epochs_of(spec, out.path());
  ASSERT_EQ(epochs.size(), 3U) << "at the start of epochs 1 to 3";
  const std::vector<std::string> phases{"warm-up", "search", "freeze"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(epochs[i].at("phase"), phases[i]);
    EXPECT_EQ(epochs[i].at("at_step"), 4 * (i + 1));
    EXPECT_EQ(epochs[i].at("blocks"), json({1, 3, 5}));
    EXPECT_EQ(epochs[i].at("stages"), json({0, 1, 2}));
    EXPECT_EQ(epochs[i].contains("score"), i > 0);
    for (const json& d : epochs[i].at("divergence")) EXPECT_GT(d.get<double>(), 0);
    // The second row of a stage of two: what is left for the first block is 1 - a, and D its
    // -log, so the mean of D is at least that of the mean weight.
    for (std::size_t stage = 0; stage < 3; ++stage) {
      const double earlier = epochs[i].at("profiles")[stage][1][0];
      EXPECT_GE(epochs[i].at("divergence")[stage].get<double>(), -std::log(earlier) - 1e-3);
    }
  }
  const json& last = epochs.back();
  ASSERT_EQ(last.at("fits").size(), 1U);
  std::set<std::string> gone;
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(last.at("skipped")[i] == 1, last.at("score")[i] <= 0.5) << "patience 1, no revival";
    if (last.at("skipped")[i] == 1) gone.insert(cat("layer", i + 1, ".1.layer_attention."));
  }
  ASSERT_FALSE(gone.empty());
  EXPECT_LT(gone.size(), 3U);
  for (const auto& [name, tensor] : record.weights) {
    for (const std::string& prefix : gone) EXPECT_FALSE(name.starts_with(prefix)) << name;
  }
  EXPECT_EQ(record.series.at("ela/skipped").at(12), gone.size());
  EXPECT_EQ(record.series.at("ela/divergence/3").size(), 3U);
  EXPECT_EQ(record.series.at("ela/tau").at(12), last.at("fits")[0].at("tau"));
}

// Skipped branches are not trained: neither gradient nor decay nor momentum moves them.
TEST(ElaRun, SkippedBranchesStandStill) {
  const TempFolder out;
  const RunSpec spec =
      ela_spec("preset=\"first_m\",skip=1,warmup_epochs=1,freeze_epoch=3", {"epochs=5"});
  Environment environment = environment_in(out.path());
  std::map<std::int64_t, std::map<std::string, at::Tensor>> at_step;
  for (environment.attempt = 1; environment.attempt <= 12; ++environment.attempt) {
    run_attempt(spec, environment, 1, true);
    const auto folder =
        RunPaths(out.path(), spec.id()).checkpoints() /
        cat("step-", std::string(9 - cat(environment.attempt).size(), '0'), environment.attempt);
    for (auto& [name, tensor] : read_tensors(folder / "tensors.safetensors")) {
      at_step[environment.attempt][name] = tensor.clone();
    }
  }
  const auto moved = [&](const std::string& name, std::int64_t from, std::int64_t to) {
    const std::string stored = cat("model.", name);
    return !at::equal(at_step.at(from).at(stored), at_step.at(to).at(stored));
  };
  const std::string skipped = "layer1.1.layer_attention.", kept = "layer2.1.layer_attention.";
  for (const char* part : {"query", "key", "value", "norm.weight", "norm.bias", "norm.running_mean",
                           "norm.num_batches_tracked"}) {
    EXPECT_TRUE(moved(skipped + part, 1, 4)) << part << ": the warm-up trains it";
    EXPECT_FALSE(moved(skipped + part, 4, 12)) << part << ": skipped from step 4 on";
    EXPECT_TRUE(moved(kept + part, 4, 12)) << part;
  }
  EXPECT_TRUE(moved("layer1.1.conv1.weight", 4, 12));
}

TEST(ElaRun, EachPresetAndModeTrains) {
  const std::vector<std::string> settings{
      "preset=\"bqm_soft\"",
      "preset=\"ebqm_layer\",threshold=10.0",
      "preset=\"bqm_rank\",threshold=0.5",
      "preset=\"threshold\",threshold=1e6,mode=\"recur\"",
      "preset=\"every_other\",mode=\"keep_keys\"",
      "preset=\"top_m\",skip=2,mode=\"reuse\",divergence=\"cosine\"",
      "preset=\"top_m\",skip=2,divergence=\"jensen_shannon\"",
      "preset=\"top_m\",skip=2,divergence=\"mean_rows\"",
      "preset=\"top_m\",skip=2,variant=\"light\"",
      "preset=\"top_m\",skip=2,variant=\"light\",mode=\"reuse\",divergence=\"categorical\"",
      "preset=\"random_m\",skip=1,variant=\"light\""};
  for (const std::string& setting : settings) {
    const TempFolder out;
    const RunSpec spec = ela_spec(setting + ",warmup_epochs=1,freeze_epoch=1", {"epochs=2"});
    const RunRecord record = run_small(spec, out.path());
    const std::vector<json> epochs = epochs_of(spec, out.path());
    ASSERT_EQ(epochs.size(), 1U) << setting;
    EXPECT_EQ(epochs[0].at("phase"), "freeze");
    EXPECT_TRUE(std::isfinite(record.series.at("train/loss").rbegin()->second)) << setting;
    if (setting.find("soft") == std::string::npos) {
      EXPECT_GT(record.series.at("ela/skipped").rbegin()->second, 0) << setting;
    }
  }
}

#if ABLATE_HAS_CUDA

// The search on a device follows the one on the CPU, and continues exactly.
TEST(ElaRunGpu, FollowsTheCpuAndItselfAfterInterruptions) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU";
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
  for (const std::string variant : {"base", "light"}) {
    // A rate at which rounding stays rounding: at the usual one a difference of 1e-6 doubles D
    // within an epoch. Three steps are eager after each change of structure: epochs of eight reach
    // the graph.
    const RunSpec spec =
        ela_spec(cat("variant=\"", variant, "\",q=0.5,patience=1,warmup_epochs=1,freeze_epoch=3"),
                 {"epochs=5", "dataset.train_size=256", "optimizer.lr=0.0005"});
    const auto run_on = [&](const std::string& device, const std::filesystem::path& out,
                            bool stop_at_once) {
      Environment environment = environment_in(out, device);
      Outcome outcome;
      for (environment.attempt = 1; environment.attempt <= 60; ++environment.attempt) {
        outcome = run_attempt(spec, environment, 1, stop_at_once);
        if (outcome.state == OutcomeState::Done) break;
      }
      EXPECT_EQ(outcome.state, OutcomeState::Done);
      return read_run(spec, environment, environment.attempt);
    };
    const TempFolder out;
    const RunRecord host = run_on("cpu", out / "cpu", false);
    const RunRecord device = run_on("cuda", out / "cuda", false);
    EXPECT_EQ(device.structure, host.structure);
    for (const auto& [step, value] : host.series.at("ela/divergence/3")) {
      const double found = device.series.at("ela/divergence/3").at(step);
      std::cout << variant << ": divergence at step " << step << " " << value << ", on the device "
                << found << "\n";
      EXPECT_NEAR(found / value, 1.0, step == 8 ? 1e-3 : 0.01) << step;
    }
    expect_same_bits(device, run_on("cuda", out / "again", false));
    expect_same_bits(device, run_on("cuda", out / "pieces", true));
  }
}

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate::test
