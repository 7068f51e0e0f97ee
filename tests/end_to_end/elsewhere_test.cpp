#include <gtest/gtest.h>

#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"
#include "tests/end_to_end/workbench.h"

// A sweep whose runs are computed where there is no `ablate`.

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Workbench;

void copy_runs(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  fs::copy(from / "runs", to / "runs",
           fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

TEST(Elsewhere, RunsComputedThereAreTakenAsDoneHere) {
  const test::TempFolder here_folder, there_folder;
  const Workbench here(here_folder.path()), there(there_folder.path());
  const CapturedRun specs =
      here.ablate({"sweep", here.write("tiny.toml", test::kTinySweep), "--specs-only"});
  EXPECT_EQ(specs.status.code, 0) << specs.errors;
  EXPECT_TRUE(contains(specs.output, "8 specs are below")) << specs.output;

  copy_runs(here.out(), there.out());
  const CapturedRun job = there.train({"--all", "--at-a-time", "3", "--device", "cpu"});
  EXPECT_EQ(job.status.code, 0) << job.errors;
  copy_runs(there.out(), here.out());

  const CapturedRun table = here.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(table.status.code, 0) << table.errors;
  EXPECT_FALSE(contains(table.errors, "started") || contains(table.errors, "resumed"))
      << table.errors;
  EXPECT_EQ(table.output, test::finished_sweep().run.output);
  test::expect_equal_results(test::read_results(test::finished_sweep().bench.out()),
                             test::read_results(here.out()));
  test::expect_sound_records(here.out());
}

TEST(Elsewhere, TheRestIsComputedHere) {
  const test::TempFolder here_folder, there_folder;
  const Workbench here(here_folder.path()), there(there_folder.path());
  here.ablate({"sweep", here.write("tiny.toml", test::kTinySweep), "--specs-only"});
  copy_runs(here.out(), there.out());
  // At a step of some run of the first pair; the others have not begun.
  const CapturedRun job =
      there.train({"--all", "--at-a-time", "2", "--device", "cpu", "--deadline", "0.001"});
  EXPECT_EQ(job.status.code, 3) << job.errors;
  copy_runs(there.out(), here.out());
  const CapturedRun table = here.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(table.status.code, 0) << table.errors;
  EXPECT_EQ(table.output, test::finished_sweep().run.output);
  test::expect_equal_results(test::read_results(test::finished_sweep().bench.out()),
                             test::read_results(here.out()));
}

}  // namespace
}  // namespace ablate
