#include <chrono>
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>
#include <signal.h>

#include "runner/core/text.h"
#include "tests/end_to_end/process_table.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"
#include "tests/end_to_end/workbench.h"

// Sweeps whose runs share processes end with the bits of runs that had one each.

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Workbench;

const char* const kPacked = "launch.runs_per_gpu=4";

void expect_same_sweep(const Workbench& bench, const CapturedRun& sweep) {
  EXPECT_EQ(sweep.status.code, 0) << sweep.errors;
  EXPECT_EQ(sweep.output, test::finished_sweep().run.output);
  test::expect_equal_results(test::read_results(test::finished_sweep().bench.out()),
                             test::read_results(bench.out()));
  test::expect_sound_records(bench.out());
  EXPECT_TRUE(test::processes_naming(bench.out().string()).empty());
}

TEST(PackedSweep, HasTheTableOfOneThatIsNotPacked) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  const CapturedRun sweep =
      bench.ablate({"sweep", bench.write("tiny.toml", test::kTinySweep), kPacked});
  expect_same_sweep(bench, sweep);
  // Both seeds of the parent share a process, then those of its two children.
  EXPECT_EQ(bench.query("SELECT runs_in_process, count(*) FROM attempt GROUP BY 1"), "2,4\n4,4\n");
}

/// Attempts that have begun to write.
std::size_t count_attempts(const Workbench& bench) {
  std::size_t count = 0;
  std::error_code ignored;
  for (const auto& run : fs::directory_iterator(bench.out() / "runs", ignored)) {
    for (const auto& entry : fs::directory_iterator(run.path(), ignored)) {
      if (fs::exists(entry.path() / "rank0.spool")) ++count;
    }
  }
  return count;
}

/// The process that computes runs below `out`, once it is there.
std::optional<ProcessId> wait_for_ranks(const Workbench& bench, ChildProcess& ablate) {
  while (!ablate.wait_for(0.005)) {
    for (const test::ProcessEntry& entry : test::processes_naming(bench.out().string())) {
      if (contains(join(entry.arguments, " "), "ablate-train run ")) return entry.id;
    }
  }
  return std::nullopt;
}

/// Waits until one more attempt than before tells of itself.
void wait_for_attempt(const Workbench& bench, std::size_t before, ChildProcess& ablate) {
  while (count_attempts(bench) <= before && !ablate.wait_for(0.002)) {
  }
}

/// Strikes the sweep a few times, each blow a little later after an attempt began than the one
/// before.
void strike(const Workbench& bench, bool at_ranks) {
  for (int blow = 0; blow < 6; ++blow) {
    ProcessOptions options = test::real_ablate(bench / "", {"sweep", "tiny.toml", kPacked});
    options.output_file = options.error_file = bench / "output.txt";
    ChildProcess ablate(options);
    const std::size_t attempts = count_attempts(bench);
    const auto ranks = wait_for_ranks(bench, ablate);
    if (!ranks) return;
    wait_for_attempt(bench, attempts, ablate);
    std::this_thread::sleep_for(std::chrono::milliseconds(60 * blow));
    ::kill(at_ranks ? ranks->pid : ablate.pid(), SIGKILL);
    if (!at_ranks) ablate.wait();
    if (at_ranks) ablate.signal_group(SIGTERM);
    ablate.wait();
  }
}

TEST(PackedSweep, ItsProcessMayBeKilled) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  bench.write("tiny.toml", test::kTinySweep);
  strike(bench, /*at_ranks=*/true);
  expect_same_sweep(bench, bench.ablate({"sweep", "tiny.toml", kPacked}));
  EXPECT_GT(std::stoi(bench.query("SELECT count(*) FROM attempt")), test::kTinyRuns);
}

TEST(PackedSweep, AblateMayBeKilled) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  bench.write("tiny.toml", test::kTinySweep);
  strike(bench, /*at_ranks=*/false);
  expect_same_sweep(bench, bench.ablate({"sweep", "tiny.toml", kPacked}));
  EXPECT_GT(std::stoi(bench.query("SELECT count(*) FROM attempt")), test::kTinyRuns);
}

}  // namespace
}  // namespace ablate
