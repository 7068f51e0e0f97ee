#include "sweeps/schedule_state.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

ScheduledRun with_estimate(double seconds) {
  ScheduledRun run;
  run.estimate_s = seconds;
  return run;
}

ScheduleEntry entry_of(const ScheduledRun& run, Stage stage, double seconds = 0) {
  ScheduleEntry entry;
  entry.run = &run;
  entry.stage = stage;
  entry.seconds = seconds;
  return entry;
}

TEST(SweepStatusTime, IsTheSumOfEstimatesWhileNothingIsKnown) {
  const ScheduledRun run = with_estimate(10);
  std::vector<ScheduleEntry> entries;
  for (int i = 0; i < 4; ++i) entries.push_back(entry_of(run, Stage::Waiting));
  EXPECT_DOUBLE_EQ(sweep_status(entries, 1).seconds_left.value(), 40);
  EXPECT_DOUBLE_EQ(sweep_status(entries, 2).seconds_left.value(), 20);
}

TEST(SweepStatusTime, LearnsFromRunsThatFinished) {
  const ScheduledRun run = with_estimate(10), longer = with_estimate(30);
  std::vector<ScheduleEntry> entries;
  entries.push_back(entry_of(run, Stage::Done, 4));
  entries.push_back(entry_of(longer, Stage::Done, 16));  // 20 s instead of 40
  entries.push_back(entry_of(run, Stage::Done));         // an earlier session's: says nothing
  entries.push_back(entry_of(run, Stage::Waiting));
  entries.push_back(entry_of(longer, Stage::Waiting));
  const SweepStatus status = sweep_status(entries, 1);
  EXPECT_EQ(status.done, 3);
  EXPECT_EQ(status.waiting, 2);
  EXPECT_DOUBLE_EQ(status.seconds_left.value(), 20);
}

TEST(SweepStatusTime, IsUnknownWhenAWaitingRunHasNoEstimate) {
  const ScheduledRun run = with_estimate(10), blank = with_estimate(0);
  std::vector<ScheduleEntry> entries;
  entries.push_back(entry_of(run, Stage::Waiting));
  entries.push_back(entry_of(blank, Stage::Waiting));
  EXPECT_FALSE(sweep_status(entries, 1).seconds_left);
}

}  // namespace
}  // namespace ablate
