#include <algorithm>

#include <gtest/gtest.h>

#include "results/spool_reader.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "runner/core/text.h"
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

/// The first row of the tiny sweep, as a sweep of one run and as a run file.
std::string dense_sweep() {
  std::string text = kTinySweep;
  text.replace(text.find("[[variant]]\nlabel = \"dense, same"), std::string::npos,
               "[seeds]\ncount = 1\n[launch]\ncheckpoint_steps = 1\n");
  return text;
}
std::string dense_run() {
  const std::size_t begin = kTinySweep.find("dataset = "), end = kTinySweep.find("[[variant]]");
  return kTinySweep.substr(begin, end - begin);
}

void flip_byte(const fs::path& file, std::uint64_t at) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(static_cast<std::streamoff>(at));
  const char changed = static_cast<char>(bytes.get() ^ 1);
  bytes.seekp(static_cast<std::streamoff>(at));
  bytes.put(changed);
}

/// Where the frames of a spool end, in order.
std::vector<std::uint64_t> frame_ends(const fs::path& spool) {
  std::vector<std::uint64_t> ends;
  for (SpoolReader reader(spool); reader.next();) ends.push_back(reader.offset());
  return ends;
}

/// Where the frame of the first points begins and ends.
std::pair<std::uint64_t, std::uint64_t> first_points(const fs::path& spool) {
  SpoolReader reader(spool);
  for (std::uint64_t begin = 0;; begin = reader.offset()) {
    const auto frame = reader.next();
    ABLATE_CHECK(frame.has_value(), spool.string(), " holds no points");
    if (std::holds_alternative<Points>(frame->record)) return {begin, reader.offset()};
  }
}

/// One that has points: others only evaluate.
std::string a_trained_run(const std::map<std::string, test::RunResult>& results) {
  const auto trained = [](const auto& result) {
    return contains(result.second.numbers, "train/loss");
  };
  const auto found = std::ranges::find_if(results, trained);
  ABLATE_CHECK(found != results.end(), "no run was trained");
  return found->first;
}

/// A run that was stopped at each of its first steps, before any of it was ingested: attempts 1 to
/// 3 made steps 0 to 2, the checkpoints of the last two are kept. Made once a test program.
struct StoppedRun {
  static constexpr int kAttempts = 3;

  StoppedRun() {
    bench.write("run.toml", dense_run());
    bench.write("stop", "");
    for (int attempt = 1; attempt <= kAttempts; ++attempt) {
      const CapturedRun run = bench.train({"run.toml", "--out", "out", "--stop-file", "stop"});
      stopped = stopped && run.status.code == 3;
      errors += run.errors;
    }
  }

  test::TempFolder folder;
  Workbench bench{folder.path()};
  bool stopped = true;
  std::string errors;
};

class Damage : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
    static const StoppedRun run;
    ASSERT_TRUE(run.stopped) << run.errors;
    fs::copy(run.bench.out(), bench_.out(), fs::copy_options::recursive);
    bench_.write("dense.toml", dense_sweep());
    ASSERT_EQ(checkpoints().size(), 2U);
  }

  RunPaths paths() const {
    return {bench_.out(), fs::directory_iterator(bench_.out() / "runs")->path().filename()};
  }
  /// Newest first.
  std::vector<fs::path> checkpoints() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(paths().checkpoints())) {
      found.push_back(entry.path());
    }
    std::sort(found.rbegin(), found.rend());
    return found;
  }
  std::string last_attempt() const {
    return bench_.query("SELECT n, first_step, outcome FROM attempt ORDER BY n DESC LIMIT 1");
  }
  CapturedRun finish() const {
    CapturedRun done = bench_.ablate({"sweep", "dense.toml"});
    EXPECT_EQ(done.status.code, 0) << done.errors;
    return done;
  }

  static std::map<std::string, test::RunResult> undisturbed(const std::string& run) {
    const auto all = test::read_results(finished_sweep().bench.out());
    return {{run, all.at(run)}};
  }
  void expect_the_usual_result() const {
    test::expect_equal_results(undisturbed(paths().directory.filename()),
                               test::read_results(bench_.out()));
    test::expect_sound_records(bench_.out());
  }

  test::TempFolder folder_;
  Workbench bench_{folder_.path()};
};

TEST_F(Damage, AnUntouchedRunGoesOnFromItsNewestCheckpoint) {
  const CapturedRun done = finish();
  EXPECT_FALSE(contains(done.errors, "problem")) << done.errors;
  EXPECT_EQ(last_attempt(), "4,3,done\n");
  expect_the_usual_result();
}

TEST_F(Damage, ACorruptCheckpointIsSkippedWithAWarning) {
  const fs::path newest = checkpoints()[0];
  flip_byte(newest / "tensors.safetensors", fs::file_size(newest / "tensors.safetensors") / 2);
  finish();
  EXPECT_EQ(last_attempt(), "4,2,done\n");
  const std::string log = read_file(paths().log(4));
  EXPECT_TRUE(contains(log, newest.filename().string() + " is skipped")) << log;
  EXPECT_TRUE(contains(log, "tensors.safetensors has another content")) << log;
  expect_the_usual_result();
}

TEST_F(Damage, WithoutAValidCheckpointARunBeginsAnew) {
  const auto found = checkpoints();
  fs::resize_file(found[0] / "tensors.safetensors", 100);
  fs::remove(found[1] / "manifest.json");
  finish();
  EXPECT_EQ(last_attempt(), "4,0,done\n");
  EXPECT_EQ(test::count_of(read_file(paths().log(4)), " is skipped"), 2U);
  expect_the_usual_result();
}

TEST_F(Damage, ATornTailThatACheckpointDoesNotRelyOnLosesNothing) {
  // As a kill leaves it: behind the checkpoint the outcome is torn, the seal is missing.
  const fs::path spool = paths().spool(StoppedRun::kAttempts, 0);
  const auto ends = frame_ends(spool);
  fs::resize_file(spool, ends[ends.size() - 2] - 5);
  const CapturedRun done = finish();
  EXPECT_FALSE(contains(done.errors, "problem")) << done.errors;
  EXPECT_EQ(bench_.query("SELECT outcome, cause FROM attempt WHERE n = 3"), "transient,killed\n");
  expect_the_usual_result();
}

TEST_F(Damage, NumbersLostWithATruncatedSpoolAreReported) {
  const fs::path spool = paths().spool(StoppedRun::kAttempts, 0);
  fs::resize_file(spool, first_points(spool).second - 5);
  const CapturedRun done = finish();
  EXPECT_TRUE(contains(done.errors, "problem")) << done.errors;
  EXPECT_TRUE(contains(done.errors, "step 2")) << done.errors;
  // A run is a function of its spec: without its folder it is computed anew, to the same bits.
  fs::remove_all(paths().directory);
  for (const char* name : {"results.db", "results.db-wal", "results.db-shm"}) {
    fs::remove(bench_.out() / name);
  }
  const CapturedRun again = finish();
  EXPECT_FALSE(contains(again.errors, "problem")) << again.errors;
  expect_the_usual_result();
}

TEST_F(Damage, AChangedByteInASpoolIsReported) {
  const auto [begin, end] = first_points(paths().spool(1, 0));
  flip_byte(paths().spool(1, 0), (begin + end) / 2);
  const CapturedRun ingest = bench_.ablate({"ingest"});
  EXPECT_EQ(ingest.status.code, 1);
  EXPECT_TRUE(contains(ingest.errors, paths().spool(1, 0).string())) << ingest.errors;
  EXPECT_TRUE(contains(ingest.errors, cat(end - begin, " bytes in the middle are damaged")))
      << ingest.errors;
  EXPECT_EQ(bench_.query("SELECT sum(lost_bytes) FROM spool"), cat(end - begin, "\n"));
  // The weights do not hang on what was reported.
  finish();
  const auto got = test::read_results(bench_.out());
  const auto expected = undisturbed(paths().directory.filename());
  EXPECT_TRUE(got.begin()->second.weights == expected.begin()->second.weights);
}

// Its numbers have a hole; the same run computed again fills it with the same bits.
TEST(DamagedSpool, AFinishedRunIsComputedAgainWhenAsked) {
  ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
  const test::SweepCopy copy;
  const Workbench& bench = copy.bench();
  const auto expected = test::read_results(bench.out());
  const std::string run = a_trained_run(expected);
  const fs::path spool = RunPaths(bench.out(), run).spool(1, 0);
  const auto [begin, end] = first_points(spool);
  fs::remove(bench.out() / "results.db");
  flip_byte(spool, (begin + end) / 2);
  EXPECT_EQ(bench.ablate({"ingest"}).status.code, 1);
  EXPECT_EQ(bench.ablate({"sweep", "tiny.toml"}).status.code, 0);

  const CapturedRun left = bench.ablate({"retry", run});
  EXPECT_TRUE(contains(left.output, "left alone; --recompute takes done ones, too")) << left.output;
  EXPECT_EQ(bench.ablate({"retry", "--recompute"}).status.code, 2) << "of every run at once";
  EXPECT_TRUE(
      contains(bench.ablate({"retry", "--recompute", run}).output, "1 run may start again"));
  const CapturedRun sweep = bench.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(sweep.status.code, 0) << sweep.errors;
  EXPECT_EQ(test::count_of(sweep.errors, "started  ") + test::count_of(sweep.errors, "resumed  "),
            1U)
      << sweep.errors;
  EXPECT_EQ(sweep.output, finished_sweep().run.output);
  test::expect_equal_results(expected, test::read_results(bench.out()));
}

// Without its outcome a run is not done, and its checkpoints are gone: it is trained again.
TEST(DamagedSpool, ARunWhoseSpoolWasCutBeforeItWasReadIsTrainedAgain) {
  ASSERT_EQ(finished_sweep().run.status.code, 0) << finished_sweep().run.errors;
  const test::SweepCopy copy;
  const Workbench& bench = copy.bench();
  const auto expected = test::read_results(bench.out());
  const std::string run = a_trained_run(expected);
  const fs::path spool = RunPaths(bench.out(), run).spool(1, 0);
  fs::remove(bench.out() / "results.db");
  fs::resize_file(spool, first_points(spool).second - 5);
  const CapturedRun sweep = bench.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(sweep.status.code, 0) << sweep.errors;
  EXPECT_EQ(test::count_of(sweep.errors, "resumed  "), 1U) << sweep.errors;
  EXPECT_EQ(test::count_of(sweep.errors, "started  "), 0U) << sweep.errors;
  EXPECT_EQ(sweep.output, finished_sweep().run.output);
  test::expect_equal_results(expected, test::read_results(bench.out()));
  test::expect_sound_records(bench.out());
}

/// A database that is damaged in the middle, cut, or no database any more.
class DamagedDatabase : public ::testing::TestWithParam<const char*> {
 protected:
  void damage(const fs::path& file) const {
    const std::string how = GetParam();
    if (how == "overwritten") {
      std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(static_cast<std::streamoff>(fs::file_size(file) / 8));
      bytes << std::string(fs::file_size(file) / 2, '\x5a');
    } else if (how == "cut") {
      fs::resize_file(file, fs::file_size(file) / 2);
    } else {
      std::ofstream(file, std::ios::binary) << std::string(5000, 'x');
    }
  }
};

TEST_P(DamagedDatabase, IsNamedWithARemedyThatBringsTheSameTable) {
  const test::SweepCopy copy;
  const Workbench& bench = copy.bench();
  const fs::path file = bench.out() / "results.db";
  const auto expected = test::read_results(bench.out());
  // All content in the file itself: a log of writes beside it would heal some of the damage.
  ASSERT_EQ(bench.ablate({"gc", "--dry-run", "--spools"}).status.code, 0);
  damage(file);
  for (const auto& command : std::vector<std::vector<std::string>>{
           {"reindex"}, {"sweep", "tiny.toml"}, {"table", "tiny.toml"}}) {
    const CapturedRun run = bench.ablate(command);
    EXPECT_EQ(run.status.code, 1) << command[0] << run.output;
    for (const char* part : {"results.db", "damaged", "mv ", "ablate ingest", "ablate sweep"}) {
      EXPECT_TRUE(contains(run.errors, part)) << command[0] << ": " << run.errors;
    }
  }
  fs::rename(file, file.string() + ".damaged");
  const CapturedRun ingest = bench.ablate({"ingest"});
  EXPECT_EQ(ingest.status.code, 0) << ingest.errors;
  const CapturedRun sweep = bench.ablate({"sweep", "tiny.toml"});
  EXPECT_EQ(sweep.status.code, 0) << sweep.errors;
  EXPECT_FALSE(contains(sweep.errors, "started")) << sweep.errors;
  EXPECT_EQ(sweep.output, finished_sweep().run.output);
  EXPECT_EQ(bench.ablate({"reindex"}).status.code, 0);
  EXPECT_EQ(bench.ablate({"table", "tiny.toml"}).output, finished_sweep().run.output);
  test::expect_equal_results(expected, test::read_results(bench.out()));
  test::expect_sound_records(bench.out());
}

INSTANTIATE_TEST_SUITE_P(Ways, DamagedDatabase,
                         ::testing::Values("overwritten", "cut", "replaced"));

TEST(OutputFolder, AFileInTheWayIsAClearErrorAndTheSameCommandCompletes) {
  const test::TempFolder folder;
  const Workbench bench(folder.path());
  bench.write("dense.toml", dense_sweep());
  fs::create_directories(bench.out());
  std::ofstream(bench.out() / "runs") << "not a folder";
  const CapturedRun refused = bench.ablate({"sweep", "dense.toml"});
  EXPECT_EQ(refused.status.code, 1) << refused.errors;
  EXPECT_TRUE(contains(refused.errors, (bench.out() / "runs").string())) << refused.errors;
  fs::remove(bench.out() / "runs");
  const CapturedRun done = bench.ablate({"sweep", "dense.toml"});
  EXPECT_EQ(done.status.code, 0) << done.errors;
}

}  // namespace
}  // namespace ablate
