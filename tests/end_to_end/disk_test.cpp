#include <gtest/gtest.h>

#include "runner/core/files.h"
#include "runner/core/text.h"
#include "tests/end_to_end/process_table.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"
#include "tests/end_to_end/workbench.h"
#include "tests/support/small_disk.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Workbench;

/// The first row of the tiny sweep, on two ranks.
std::string disk_sweep() {
  std::string text = test::kTinySweep;
  return text.replace(
      text.find("[[variant]]\nlabel = \"dense, same"), std::string::npos,
      "[seeds]\ncount = 1\n[launch]\ncheckpoint_steps = 1\nranks = 2\nretries = 1\n");
}

/// A sweep whose output folder lies on a disk of its own.
class Disk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!disk_.mounted()) GTEST_SKIP() << disk_.reason();
    bench_.write("dense.toml", disk_sweep());
  }

  /// The results on an ordinary disk.
  static const std::map<std::string, test::RunResult>& undisturbed() {
    static const auto results = [] {
      const test::TempFolder folder;
      const Workbench bench(folder.path());
      const CapturedRun run = bench.ablate({"sweep", bench.write("dense.toml", disk_sweep())});
      EXPECT_EQ(run.status.code, 0) << run.errors;
      return test::read_results(bench.out());
    }();
    return results;
  }

  CapturedRun sweep() const {
    return bench_.ablate({"sweep", "dense.toml", "--out", out().string(), "--db", "results.db"});
  }
  fs::path out() const { return disk_.path() / "out"; }
  std::string query(const std::string& sql) const {
    const std::string text =
        bench_.ablate({"query", sql, "--format", "csv", "--db", "results.db"}).output;
    return text.substr(text.find('\n') + 1);
  }

  /// Writes a file that leaves so many bytes of the disk.
  void fill(std::uint64_t left) const {
    const std::uint64_t free = free_bytes(disk_.path());
    ASSERT_GE(free, left);
    std::ofstream(disk_.path() / "ballast") << std::string(free - left, '#') << std::flush;
    ASSERT_LE(free_bytes(disk_.path()), left + 4096);
  }
  void make_room() const { fs::remove(disk_.path() / "ballast"); }

  void expect_the_usual_result() const {
    test::expect_equal_results(undisturbed(), test::read_results(out(), folder_ / "results.db"));
  }

  test::TempFolder folder_;
  test::TempFolder mount_point_;
  test::SmallDisk disk_{mount_point_.path(), "24m"};
  Workbench bench_{folder_.path()};
};

/// Bytes left: none, enough for the first small files, and for the first checkpoint.
class DiskFullAt : public Disk, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(DiskFullAt, IsNoFaultOfTheRunAndTheSameCommandCompletesIt) {
  fs::create_directories(out());
  fill(GetParam());
  const CapturedRun full = sweep();
  EXPECT_EQ(full.status.code, 1) << full.errors;
  EXPECT_TRUE(contains(full.errors, disk_.path().string())) << full.errors;
  // What a rank could still write down, or what is left to say where it could not.
  const std::string last = full.errors.substr(full.errors.rfind('\n', full.errors.size() - 2) + 1);
  EXPECT_TRUE(contains(last, "No space left on device") || contains(last, "is full")) << last;
  // Without any space there is no database yet.
  const bool known = fs::exists(folder_ / "results.db");
  EXPECT_EQ(known, GetParam() > 0);
  EXPECT_EQ(query("SELECT count(*) FROM run WHERE state NOT IN ('ready', 'interrupted')"),
            known ? "0\n" : "");
  EXPECT_EQ(query("SELECT DISTINCT outcome, exit_code FROM attempt"), known ? "transient,4\n" : "");
  make_room();
  const CapturedRun done = sweep();
  EXPECT_EQ(done.status.code, 0) << done.errors;
  expect_the_usual_result();
}

INSTANTIATE_TEST_SUITE_P(Bytes, DiskFullAt, ::testing::Values(0, 24 << 10, 250 << 10));

TEST_F(Disk, TheTrainingProgramItselfSaysThatItIsFull) {
  const std::size_t begin = test::kTinySweep.find("dataset = ");
  bench_.write("run.toml",
               test::kTinySweep.substr(begin, test::kTinySweep.find("[[variant]]") - begin));
  fill(24 << 10);
  const CapturedRun run = bench_.train({"run.toml", "--out", out().string()});
  EXPECT_EQ(run.status.code, 4) << run.errors;
  EXPECT_EQ(test::count_of(run.errors, "No space left on device"), 1U) << run.errors;
}

/// Bytes left: too few for a log of writes, for the schema, and for a run's records.
class DatabaseOnADiskFullAt : public Disk, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(DatabaseOnADiskFullAt, IsAClearErrorAndTheSameCommandCompletes) {
  const auto sweep_here = [&] {
    return bench_.ablate({"sweep", "dense.toml", "--out", out().string()});
  };
  fs::create_directories(out());
  fill(GetParam());
  const CapturedRun full = sweep_here();
  EXPECT_EQ(full.status.code, 1) << full.errors;
  EXPECT_TRUE(contains(full.errors, (out() / "results.db").string())) << full.errors;
  EXPECT_TRUE(contains(full.errors, "disk is full") || contains(full.errors, "check space"))
      << full.errors;
  EXPECT_EQ(join(test::open_files_below(disk_.path()), "\n"), "");
  make_room();
  const CapturedRun done = sweep_here();
  EXPECT_EQ(done.status.code, 0) << done.errors;
  fs::copy_file(out() / "results.db", folder_ / "results.db");
  expect_the_usual_result();
}

INSTANTIATE_TEST_SUITE_P(Bytes, DatabaseOnADiskFullAt,
                         ::testing::Values(40 << 10, 400 << 10, 700 << 10));

TEST_F(Disk, AReadOnlyOutputFolderIsAClearErrorAndGoesOn) {
  fs::create_directories(out());
  if (!disk_.set_read_only(true)) GTEST_SKIP() << "the kernel refuses a read-only file system";
  const CapturedRun refused = sweep();
  EXPECT_EQ(refused.status.code, 1) << refused.errors;
  EXPECT_TRUE(contains(refused.errors, "Read-only file system")) << refused.errors;
  EXPECT_TRUE(contains(refused.errors, out().string())) << refused.errors;
  ASSERT_TRUE(disk_.set_read_only(false));
  const CapturedRun done = sweep();
  EXPECT_EQ(done.status.code, 0) << done.errors;
  expect_the_usual_result();
}

}  // namespace
}  // namespace ablate
