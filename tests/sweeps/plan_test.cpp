#include "sweeps/plan.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

/// Seconds that a plan of this run alone guesses.
double guess(const ResolvedRun& run) {
  const test::TempFolder folder;
  Workspace workspace;
  workspace.out = folder.path();
  return make_plan({}, {Draft{}}, {run}, nullptr, workspace).work_s;
}

/// 40 steps of 25 images, an epoch of ten steps, 500 test images.
ResolvedRun run_of(std::int64_t macs, std::int64_t teacher_macs = 0, int evaluate_every = 1) {
  ResolvedRun run;
  run.spec = {{"training", {{"global_batch", 25}, {"evaluate_every", evaluate_every}}}};
  run.steps_per_epoch = 10;
  run.total_steps = 40;
  run.test_size = 500;
  run.base_macs = macs;
  run.teacher_macs = teacher_macs;
  return run;
}

// Forward and backward cost three forwards; the end is evaluated once more.
TEST(Plan, CountsForwardPassesOfStudentTeacherAndEvaluation) {
  constexpr std::int64_t kMacs = 1'000'000'000'000;
  const double nothing = guess(run_of(0));
  const double student = guess(run_of(kMacs)) - nothing;
  const double forwards = 3 * 1000 + 5 * 500;
  EXPECT_GT(student, 0);
  EXPECT_NEAR(guess(run_of(kMacs, 2 * kMacs)) - nothing, student * (forwards + 2 * 1000) / forwards,
              1e-9 * student);
  EXPECT_NEAR(guess(run_of(kMacs, 0, 3)) - nothing, student * (3 * 1000 + 3 * 500) / forwards,
              1e-9 * student);
}

}  // namespace
}  // namespace ablate
