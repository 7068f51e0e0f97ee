#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "results/spool_reader.h"
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
  EXPECT_EQ(table.errors, "")
      << "nothing is left to plan, nor are the devices of this machine asked for";
  EXPECT_EQ(table.output, test::finished_sweep().run.output);
  test::expect_equal_results(test::read_results(test::finished_sweep().bench.out()),
                             test::read_results(here.out()));
  test::expect_sound_records(here.out());
}

/// Takes the end out of a spool, as if its process had been killed before it could tell.
void forget_the_end(const fs::path& spool) {
  SpoolReader reader(spool);
  std::uint64_t before = 0;
  while (const auto frame = reader.next()) {
    if (std::holds_alternative<Outcome>(frame->record)) break;
    before = reader.offset();
  }
  fs::resize_file(spool, before);
}

/// Folders of the runs that start from no other.
std::vector<fs::path> parents_below(const fs::path& out) {
  std::vector<fs::path> found;
  for (const auto& run : fs::directory_iterator(out / "runs")) {
    std::ifstream spec(run.path() / "spec.json");
    if (nlohmann::json::parse(spec).at("parents").empty()) found.push_back(run.path());
  }
  EXPECT_FALSE(found.empty());
  return found;
}

TEST(Elsewhere, TheRestIsComputedHere) {
  const test::TempFolder here_folder, there_folder;
  const Workbench here(here_folder.path()), there(there_folder.path());
  here.ablate({"sweep", here.write("tiny.toml", test::kTinySweep), "--specs-only"});
  copy_runs(here.out(), there.out());
  // Two attempts at each parent end behind their first step, and the first does not tell so.
  for (const fs::path& run : parents_below(there.out())) {
    for (int attempt = 1; attempt <= 2; ++attempt) {
      const CapturedRun job =
          there.train({(run / "spec.json").string(), "--device", "cpu", "--deadline", "0.001"});
      EXPECT_EQ(job.status.code, 3) << job.errors;
    }
    forget_the_end(run / "attempt-1" / "rank0.spool");
  }
  copy_runs(there.out(), here.out());
  const CapturedRun table = here.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(table.status.code, 0) << table.errors;
  EXPECT_EQ(table.output, test::finished_sweep().run.output);
  test::expect_equal_results(test::read_results(test::finished_sweep().bench.out()),
                             test::read_results(here.out()));
  test::expect_sound_records(here.out());
  EXPECT_EQ(
      here.query("SELECT DISTINCT outcome || ':' || cause FROM attempt WHERE run_id IN (SELECT "
                 "run_id FROM attempt WHERE n > 1) ORDER BY n"),
      "transient:killed\ninterrupted:walltime\ndone:finished\n");
}

}  // namespace
}  // namespace ablate
