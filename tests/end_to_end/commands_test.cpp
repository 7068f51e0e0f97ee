#include <chrono>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <signal.h>

#include "runner/core/text.h"
#include "tests/end_to_end/process_table.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"
#include "tests/end_to_end/workbench.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::finished_sweep;
using test::kTinySweep;
using test::Workbench;

/// The tiny sweep with columns that have to be measured, by short measurements.
std::string speed_sweep() {
  std::string text = kTinySweep;
  const std::string columns = "[\"top1\", \"params_m\", \"gmacs\"]", launch = "[launch]\n";
  text.replace(text.find(columns), columns.size(),
               "[\"top1\", \"images_per_s\", \"peak_mem_mib\", \"max_batch\"]");
  return text.insert(text.find(launch) + launch.size(),
                     "bench_seconds = 0.02\nbench_batch = 16\nbench_memory_mib = 64\n");
}

double bench_value(const Workbench& bench, const std::string& run, const std::string& column) {
  return std::stod(bench.query(
      "SELECT " + column +
      " FROM bench JOIN run USING(structure_hash) JOIN sweep_variant USING(variant_id) WHERE "
      "label || ' seed ' || seed = '" +
      run + "' ORDER BY bench_id LIMIT 1"));
}

TEST(Commands, SpeedAndMemoryAreMeasuredOnceAStructureAndSurviveTheDatabase) {
  ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
  const test::SweepCopy copy;
  const Workbench& bench = copy.bench();
  const CapturedRun first = bench.ablate({"sweep", bench.write("speed.toml", speed_sweep())});
  ASSERT_EQ(first.status.code, 0) << first.errors;
  EXPECT_FALSE(contains(first.errors, "started")) << "a column is no part of a run";
  EXPECT_EQ(test::count_of(first.errors, "measure  "), 3U)
      << "dense and its control are one structure: " << first.errors;
  EXPECT_LE(bench_value(bench, "NOSE 1/2 seed 0", "peak_bytes"),
            bench_value(bench, "dense seed 0", "peak_bytes"));
  EXPECT_GE(bench_value(bench, "NOSE 1/2 seed 0", "max_batch"),
            bench_value(bench, "dense seed 0", "max_batch"));
  const CapturedRun second = bench.ablate({"sweep", "speed.toml"});
  EXPECT_FALSE(contains(second.errors, "measure")) << second.errors;
  EXPECT_EQ(second.output, first.output);
  const std::string figures =
      "SELECT structure_hash, protocol, images_per_s, peak_bytes, max_batch FROM bench ORDER BY 1, "
      "3";
  const std::string before = bench.query(figures);
  fs::remove(bench.out() / "results.db");
  EXPECT_EQ(bench.ablate({"ingest"}).status.code, 0);
  EXPECT_EQ(bench.query(figures), before);
  const CapturedRun rebuilt = bench.ablate({"sweep", "speed.toml"});
  EXPECT_EQ(rebuilt.status.code, 0) << rebuilt.errors;
  EXPECT_FALSE(contains(rebuilt.errors, "measure")) << rebuilt.errors;
}

/// Whether a process has a handler for a signal.
bool catches(pid_t pid, int signal) {
  std::ifstream status(cat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("SigCgt:")) continue;
    return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0;
  }
  return false;
}

/// Waits for the mpirun of a job in the folder that can be told to end; the test runner has a
/// deadline.
pid_t wait_for_mpirun(const std::string& folder) {
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
    for (const test::ProcessEntry& entry : test::processes_naming(folder)) {
      if (entry.arguments[0] == "mpirun" && catches(entry.id.pid, SIGTERM)) return entry.id.pid;
    }
  }
}

// mpirun then exits with 1, as if a rank had failed, and no rank had the time to tell anything.
TEST(Commands, ALauncherThatIsEndedBeforeItsRanksStartIsTriedAgain) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  std::string text = kTinySweep;
  text.replace(text.find("[[variant]]\nlabel = \"dense, same"), std::string::npos,
               "[seeds]\ncount = 1\n[launch]\nranks = 2\n");
  bench.write("dense.toml", text);
  ProcessOptions options = test::real_ablate(folder.path(), {"sweep", "dense.toml", "epochs=60"});
  options.output_file = bench / "stdout.txt";
  options.error_file = bench / "stderr.txt";
  ChildProcess ablate(options);
  ASSERT_EQ(::kill(wait_for_mpirun((bench.out() / "runs").string()), SIGTERM), 0);
  EXPECT_EQ(ablate.wait().code, 0) << read_file(bench / "stderr.txt");
  EXPECT_EQ(bench.query("SELECT count(*), sum(outcome = 'failed') FROM attempt"), "2,0\n")
      << bench.query("SELECT outcome, cause, detail FROM attempt");
}

TEST(Commands, ListAndDoctorSpeakForTheTrainingProgram) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  const CapturedRun methods = bench.ablate({"list", "methods"});
  EXPECT_EQ(methods.status.code, 0) << methods.errors;
  EXPECT_TRUE(contains(methods.output, "nose") && contains(methods.output, "tome"))
      << methods.output;
  for (const std::string& line : split(methods.output, '\n')) {
    const bool ours = contains(line, " ela ") || contains(line, " channel_pruning ");
    const bool published = contains(line, " tome ") || contains(line, " mrla_base ");
    EXPECT_FALSE(ours && !contains(line, "reconstruction")) << line;
    EXPECT_FALSE(published && contains(line, "reconstruction")) << line;
  }
  EXPECT_TRUE(
      contains(bench.ablate({"list", "methods", "ela"}).output, "reconstruction  the paper"));
  const CapturedRun nose = bench.ablate({"list", "methods", "nose"});
  for (const char* part : {"CVPR 2024", "remove", "dilution_epochs", "transfer_entropy"}) {
    EXPECT_TRUE(contains(nose.output, part)) << part << " in\n" << nose.output;
  }
  const CapturedRun doctor = bench.ablate({"doctor"});
  EXPECT_EQ(doctor.status.code, 0) << doctor.output;
  EXPECT_TRUE(contains(doctor.output, "2.11.0")) << doctor.output;
  EXPECT_TRUE(contains(doctor.output, "two ranks answer")) << doctor.output;
}

TEST(Commands, ARunFileIsTheSameRunAsTheRowOfASweep) {
  ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  const std::size_t begin = kTinySweep.find("dataset = "), end = kTinySweep.find("[[variant]]");
  bench.write("dense.toml", kTinySweep.substr(begin, end - begin));
  const CapturedRun run = bench.ablate({"run", "dense.toml", "seed=1"});
  ASSERT_EQ(run.status.code, 0) << run.errors;
  EXPECT_TRUE(contains(run.output, "top1")) << run.output;
  const auto got = test::read_results(bench.out());
  ASSERT_EQ(got.size(), 1U);
  auto expected = test::read_results(finished_sweep().bench.out());
  std::erase_if(expected, [&](const auto& entry) { return !got.contains(entry.first); });
  test::expect_equal_results(expected, got);
}

}  // namespace
}  // namespace ablate
