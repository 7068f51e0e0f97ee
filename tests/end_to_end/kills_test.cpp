#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>

#include <gtest/gtest.h>

#include "runner/core/text.h"
#include "tests/end_to_end/process_table.h"
#include "tests/end_to_end/struck_sweep.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/workbench.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Workbench;

// Random augmentation, mixing, drop-path, averaged weights and a search: whatever a resumed run
// could draw anew or forget. Three generations, checkpoints every few steps.
const char* const kKillsSweep = R"(name = "kills"
[run]
dataset = { name = "synthetic", train_size = 1024, test_size = 256, image_size = 16, classes = 4 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 32, depth = 3, num_heads = 2, drop_path = 0.1 }
augmentation = { name = "cifar", mixup = 0.8, cutmix = 1.0 }
epochs = 8
global_batch = 64
ema_decay = 0.98
optimizer = { name = "adamw", lr = 2e-3, weight_decay = 0.05 }
schedule = { name = "cosine", warmup_epochs = 1 }
[[variant]]
label = "dense"
[[variant]]
label = "dense, same extra epochs"
from = "dense"
[[variant]]
label = "NOSE 1/3"
from = "dense"
methods = [ { name = "nose", remove = 1, samples = 128, dilution_epochs = 5, dilution_per = "step" } ]
[[variant]]
label = "NOSE 1/3 + ToMe"
from = "NOSE 1/3"
methods = [ { name = "tome", r = 2 } ]
[seeds]
count = 2
[launch]
ranks = 2
checkpoint_steps = 7
[table]
columns = ["top1", "params_m", "gmacs"]
baseline = "dense, same extra epochs"
)";
constexpr int kRuns = 8;

constexpr int kBlowsOfAKind = 4;
constexpr int kMostSweeps = 4;  // a sweep may be over before all blows have fallen

/// Path, size and time of every file: what would show that somebody still writes.
std::string listing(const fs::path& folder) {
  std::map<std::string, std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    lines[entry.path()] =
        cat(entry.file_size(), " ", entry.last_write_time().time_since_epoch().count());
  }
  std::string text;
  for (const auto& [path, facts] : lines) text += cat(path, " ", facts, "\n");
  return text;
}

void expect_nobody_left(const Workbench& bench) {
  EXPECT_EQ(join(test::open_files_below(bench.out()), "\n"), "");
  for (const test::ProcessEntry& entry : test::processes_naming(bench.out().string())) {
    ADD_FAILURE() << "process " << entry.id.pid << " is left: " << join(entry.arguments, " ");
  }
}

/// Runs the sweep under blows and compares everything with the undisturbed one. Returns the number
/// of attempts.
int expect_survival(const Workbench& bench, double longest_wait, test::Blows& blows,
                    const std::map<std::string, test::RunResult>& expected,
                    const std::string& table) {
  bench.write("kills.toml", kKillsSweep);
  // Two runs at a time, each on its own cores, where there are any: results do not hang on it.
  const std::size_t jobs = std::min<std::size_t>(2, available_cpus().size());
  const std::vector<std::string> arguments = {"sweep", "kills.toml", "--jobs", cat(jobs)};
  const bool complete = test::StruckSweep(bench, arguments, longest_wait, blows).run();
  EXPECT_TRUE(complete) << read_file(bench / "stderr.txt");
  if (!complete) return 0;
  expect_nobody_left(bench);
  const std::string before = listing(bench.out() / "runs");
  test::expect_sound_records(bench.out());
  test::expect_equal_results(expected, test::read_results(bench.out()));
  const CapturedRun again = bench.ablate({"sweep", "kills.toml"});
  EXPECT_EQ(again.status.code, 0) << again.errors;
  EXPECT_FALSE(contains(again.errors, "started") || contains(again.errors, "resumed"));
  EXPECT_EQ(again.output, table);
  EXPECT_EQ(listing(bench.out() / "runs"), before);
  std::cout << "attempts at " << kRuns << " runs, by how they ended:\n"
            << bench.query(
                   "SELECT outcome || ' (' || cause || ')', count(*) FROM attempt GROUP BY 1");
  return std::stoi(bench.query("SELECT count(*) FROM attempt"));
}

std::uint64_t seed_of_blows() {
  const char* text = std::getenv("ABLATE_KILLS_SEED");  // another course of events
  return text == nullptr ? 1 : std::stoull(text);
}

TEST(KillsLong, AStruckSweepEndsWithTheBitsOfAnUndisturbedOne) {
  const test::TempFolder calm_folder;
  const Workbench calm(calm_folder.path());
  const auto begin = std::chrono::steady_clock::now();
  const CapturedRun done = calm.ablate({"sweep", calm.write("kills.toml", kKillsSweep)});
  ASSERT_EQ(done.status.code, 0) << done.errors;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  test::expect_sound_records(calm.out());
  const auto expected = test::read_results(calm.out());
  ASSERT_EQ(expected.size(), static_cast<std::size_t>(kRuns));

  const std::uint64_t seed = seed_of_blows();
  test::Blows blows(seed, kBlowsOfAKind);
  int further_attempts = 0;
  for (int sweep = 0; sweep < kMostSweeps && !blows.empty() && !HasFailure(); ++sweep) {
    const test::TempFolder folder;
    further_attempts += expect_survival(Workbench(folder.path()), 0.6 * took.count() / kRuns, blows,
                                        expected, done.output) -
                        kRuns;
  }
  std::cout << "blows of seed " << seed << ":\n" << blows.report();
  for (const test::Blow& blow : test::kBlows) {
    EXPECT_EQ(blows.live_hits(blow.name), kBlowsOfAKind) << blow.name;
  }
  // A job outlives its `ablate`; of the other blows some fall on one attempt, or on one about to
  // end.
  EXPECT_GE(further_attempts, 2 * kBlowsOfAKind);
}

}  // namespace
}  // namespace ablate
