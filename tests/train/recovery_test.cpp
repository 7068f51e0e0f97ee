#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/train/checkpoint.h"
#include "tests/core/expect_error.h"
#include "tests/support/run_records.h"
#include "tests/support/small_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/train/file_size_limit.h"
#include "tests/train/probe.h"
#include "tests/train/run_tables.h"

// Runs that lose their process, their checkpoints, their disk or their right to write.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

struct Crash {};

/// Attempts at one run in a folder of its own.
class Attempts {
 public:
  explicit Attempts(RunSpec spec, const fs::path& out)
      : environment(environment_in(out)), spec_(std::move(spec)), paths(out, spec_.id()) {
    environment.checkpoint_steps = 2;
    environment.attempt = 0;
  }

  Outcome next(int ranks = 1) {
    ++environment.attempt;
    return run_attempt(spec_, environment, ranks);
  }
  /// The next attempt dies before step `step`, leaving what a killed process leaves.
  void crash_before(std::int64_t step, int ranks = 1) {
    const Probe probe(before_step(step, ranks - 1, [] { throw Crash(); }));
    EXPECT_THROW(next(ranks), Crash);
  }
  fs::path checkpoint(std::int64_t step) const {
    return paths.checkpoints() / cat("step-00000000", step);
  }
  std::set<std::string> checkpoints() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(paths.checkpoints())) {
      names.insert(entry.path().filename());
    }
    return names;
  }
  fs::path spool(int rank = 0) const { return paths.spool(environment.attempt, rank); }
  /// Step after which the present attempt went on; -1 when it began from nothing.
  std::int64_t resumed_at() const {
    const auto events = events_of(spool(), "resumed");
    return events.empty() ? -1 : events.front().at("step").get<std::int64_t>();
  }
  RunRecord record() const { return read_run(spec_, environment, environment.attempt); }

  Environment environment;

 private:
  RunSpec spec_;

 public:
  RunPaths paths;
};

/// Two epochs of four steps, with all kinds of state.
RunSpec recoverable(std::string_view toml = kTinyVit) {
  return resolve_table(toml, joined(all_randomness(), {"ema_decay=0.9", kWithProbe}));
}

const RunRecord& undisturbed() {
  static const RunRecord record = [] {
    const TempFolder out;
    return run_small(recoverable(), out.path());
  }();
  return record;
}

TEST(Recovery, AKilledAttemptIsContinuedFromItsLastCheckpoint) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  run.crash_before(5);
  EXPECT_EQ(run.checkpoints(), (std::set<std::string>{"step-000000002", "step-000000004"}));
  run.crash_before(4);  // before any step of its own
  run.crash_before(7);
  EXPECT_EQ(run.next().state, OutcomeState::Done);
  EXPECT_EQ(run.resumed_at(), 6);
  expect_same_bits(undisturbed(), run.record());
}

TEST(Recovery, ADamagedCheckpointCostsTheStepsSinceTheOneBefore) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  run.crash_before(7);
  EXPECT_EQ(run.checkpoints(), (std::set<std::string>{"step-000000004", "step-000000006"}));
  fs::resize_file(run.checkpoint(6) / "tensors.safetensors", 1000);
  testing::internal::CaptureStderr();
  run.next();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find(cat(run.checkpoint(6).string(), " is skipped")), std::string::npos) << said;
  EXPECT_EQ(run.resumed_at(), 4);
  expect_same_bits(undisturbed(), run.record());
}

TEST(Recovery, WithoutAWholeCheckpointTheRunStartsAfreshAndSaysSo) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  run.crash_before(7);
  fs::remove(run.checkpoint(6) / "manifest.json");
  fs::resize_file(run.checkpoint(4) / "state.json", 3);
  testing::internal::CaptureStderr();
  run.next();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("starts from its beginning"), std::string::npos) << said;
  EXPECT_EQ(run.resumed_at(), -1);
  expect_same_bits(undisturbed(), run.record());
}

TEST(Recovery, AFreshRunSaysNothingOfCheckpoints) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  testing::internal::CaptureStderr();
  run.next();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find("checkpoint"), std::string::npos) << said;
}

TEST(Recovery, ACheckpointOfAnotherStructureIsNamedNotRead) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  run.crash_before(3);
  CheckpointStore store(run.paths.checkpoints(), 2, [] {});
  Checkpoint foreign = CheckpointStore::load(run.checkpoint(2));
  std::erase_if(foreign.tensors,
                [](const auto& named) { return named.first == "exp_avg/norm.bias"; });
  store.save(foreign, "", true);
  const std::string message = message_of<Error>([&] { run.next(); });
  EXPECT_NE(message.find("exp_avg/norm.bias"), std::string::npos) << message;
  EXPECT_EQ(spooled_outcome(run.spool()).state, OutcomeState::Failed);
}

TEST(Recovery, AFinishedRunKeepsFinalsOnly) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  run.crash_before(5);
  EXPECT_FALSE(fs::exists(run.paths.final_directory()));
  run.next();
  EXPECT_FALSE(fs::exists(run.paths.checkpoints()));
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(run.paths.final_directory())) {
    files.insert(entry.path().filename());
  }
  EXPECT_EQ(files,
            (std::set<std::string>{"ema.safetensors", "model.safetensors", "structure.json"}));
  EXPECT_NE(run.record().structure.at("spec"), nullptr);
}

TEST(Recovery, KeepsAsManyCheckpointsAsAsked) {
  for (const int keep : {1, 3}) {
    const TempFolder out;
    Attempts run(recoverable(), out.path());
    run.environment.checkpoint_steps = 1;
    run.environment.keep_checkpoints = keep;
    run.crash_before(6);
    EXPECT_EQ(run.checkpoints().size(), static_cast<std::size_t>(keep));
    EXPECT_TRUE(run.checkpoints().contains("step-000000006"));
  }
}

// A left-over process of an attempt that was given up must not overwrite its successor.
TEST(LostFence, EndsAnAttemptBeforeItRenamesAnything) {
  for (const int ranks : {1, 2}) {
    const TempFolder out;
    Attempts run(recoverable(), out.path());
    make_directories(run.paths.directory);
    write_file_atomic(run.paths.fence(), "1");
    {
      const Probe probe(before_step(3, 0, [&] { write_file_atomic(run.paths.fence(), "2"); }));
      const std::string message = message_of<TransientError>([&] { run.next(ranks); });
      EXPECT_NE(message.find("given up"), std::string::npos) << message;
      EXPECT_NE(message.find("fence 1, now 2"), std::string::npos) << message;
    }
    EXPECT_EQ(run.checkpoints(), (std::set<std::string>{"step-000000002"}));
    const Outcome outcome = spooled_outcome(run.spool());
    EXPECT_EQ(outcome.state, OutcomeState::Transient);
    EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::Transient));
    // Whoever holds the fence continues.
    run.environment.fence = 2;
    EXPECT_EQ(run.next(ranks).state, OutcomeState::Done);
    EXPECT_EQ(run.resumed_at(), 2);
    if (ranks == 1) expect_same_bits(undisturbed(), run.record());
  }
}

// A run without steps writes no checkpoint, so that the finals are the first to be refused.
TEST(LostFence, KeepsTheFinalsOfTheSuccessor) {
  const TempFolder out;
  Attempts run(resolve_table(kTinyVit, {"epochs=0"}), out.path());
  make_directories(run.paths.directory);
  write_file_atomic(run.paths.fence(), "1");
  run.next();
  fs::resize_file(run.paths.final_weights(), 10);  // any writer of today would replace it
  write_file_atomic(run.paths.fence(), "7");
  EXPECT_THROW(run.next(), TransientError);
  EXPECT_EQ(fs::file_size(run.paths.final_weights()), 10U);
}

/// What an attempt on a full disk leaves, and that the next one can go on.
void expect_clear_end(Attempts& run, const std::string& message, const std::string& reason) {
  EXPECT_NE(message.find(reason), std::string::npos) << message;
  EXPECT_NE(message.find(run.paths.directory.string()), std::string::npos) << message;
  EXPECT_TRUE(run.checkpoints().contains("step-000000002"));
  EXPECT_FALSE(run.checkpoints().contains("step-000000004"));
  for (const std::string& name : run.checkpoints()) EXPECT_FALSE(name.starts_with(".new-")) << name;
  const Outcome outcome = spooled_outcome(run.spool());
  EXPECT_EQ(outcome.state, OutcomeState::Transient) << "worth another try";
  EXPECT_NE(outcome.detail.find(reason), std::string::npos) << outcome.detail;
  EXPECT_EQ(outcome.last_step, 4) << "the step whose checkpoint could not be written";
}

TEST(FullDisk, EndsARunClearlyAndTheNextAttemptContinues) {
  const TempFolder out;
  const SmallDisk disk(out.path(), "4m");
  if (!disk.mounted()) GTEST_SKIP() << disk.reason();
  Attempts run(recoverable(), out.path());
  std::string message;
  {
    const Probe probe(before_step(3, 0, [&] {
      // Leaves room for the spool, not for another checkpoint.
      const std::uintmax_t room = fs::file_size(run.checkpoint(2) / "tensors.safetensors") / 2;
      std::ofstream filler(out / "filler", std::ios::binary);
      const std::string zeros(fs::space(out.path()).available - room, '\0');
      filler.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
    }));
    message = message_of<Error>([&] { run.next(); });
  }
  expect_clear_end(run, message, "No space left on device");
  fs::remove(out / "filler");
  EXPECT_EQ(run.next().state, OutcomeState::Done);
  EXPECT_EQ(run.resumed_at(), 2);
  expect_same_bits(undisturbed(), run.record());
}

// The same where nothing can be mounted.
TEST(FullDisk, AFileThatCannotGrowEndsARunClearly) {
  const TempFolder out;
  Attempts run(recoverable(), out.path());
  std::unique_ptr<FileSizeLimit> limit;
  std::string message;
  {
    const Probe probe(before_step(3, 0, [&] {
      limit = std::make_unique<FileSizeLimit>(
          fs::file_size(run.checkpoint(2) / "tensors.safetensors") / 2);
    }));
    message = message_of<Error>([&] { run.next(); });
  }
  limit.reset();
  expect_clear_end(run, message, "File too large");
  EXPECT_EQ(run.next().state, OutcomeState::Done);
  EXPECT_EQ(run.resumed_at(), 2);
  expect_same_bits(undisturbed(), run.record());
}

}  // namespace
}  // namespace ablate::test
