#include "runner/core/schedule.h"

#include <cmath>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"

namespace ablate {
namespace {

ScheduleSettings settings(std::string_view name, const std::string& toml) {
  const Value table = parse_toml(toml, "run.toml");
  Params params(table, "schedule");
  ScheduleSettings read = read_schedule(name, params);
  params.finish();
  return read;
}

using Golden = std::vector<std::pair<std::int64_t, double>>;

/// Relative to the ten digits of the published values.
void expect_rates(const Schedule& schedule, std::int64_t steps_per_index, const Golden& golden,
                  double tolerance = 2e-10) {
  for (const auto& [index, rate] : golden) {
    EXPECT_NEAR(schedule.lr(index * steps_per_index), rate, tolerance * rate) << index;
    EXPECT_EQ(schedule.lr(index * steps_per_index),
              schedule.lr(index * steps_per_index + steps_per_index - 1))
        << "constant within " << index;
  }
}

const char* const kDeit = "per = 'epoch_lagged'\nwarmup_epochs = 5\nmin_lr = 1e-5";

TEST(Schedule, DeitWithTheLagOfItsTrainingCode) {
  const Schedule schedule(settings("cosine", kDeit), 1e-3, RunLength::of_epochs(1251, 300));
  expect_rates(schedule, 1251,
               {{0, 1e-6},
                {1, 1e-6},
                {2, 2.008e-4},
                {3, 4.006e-4},
                {4, 6.004e-4},
                {5, 8.002e-4},
                {6, 9.9932161970e-4},
                {7, 9.9902323057e-4},
                {51, 9.3368257487e-4},
                {101, 7.525e-4},
                {151, 5.05e-4},
                {200, 2.6200264196e-4},
                {251, 7.6317425127e-5},
                {290, 1.3280481028e-5},
                {299, 1.0108561680e-5}});
}

TEST(Schedule, AttentionRemovalFineTuning) {
  const Schedule schedule(settings("cosine", kDeit), 2e-3, RunLength::of_epochs(625, 400));
  expect_rates(schedule, 625,
               {{2, 4.008e-4},
                {6, 1.9992328911e-3},
                {100, 1.7140753263e-3},
                {300, 3.0697623136e-4},
                {399, 1.0122750681e-5}});
}

TEST(Schedule, EpochIsTheLaggedOneAnEpochEarlier) {
  const RunLength length = RunLength::of_epochs(10, 300);
  const Schedule lagged(settings("cosine", kDeit), 1e-3, length);
  const Schedule epoch(settings("cosine", "per = 'epoch'\nwarmup_epochs = 5\nmin_lr = 1e-5"), 1e-3,
                       length);
  for (std::int64_t e = 0; e < 299; ++e) EXPECT_EQ(epoch.lr(10 * e), lagged.lr(10 * (e + 1)));
}

TEST(Schedule, PerStepMeetsPerEpochAtEpochStarts) {
  const RunLength length = RunLength::of_epochs(7, 20);
  const Schedule epoch(settings("cosine", "per = 'epoch'\nwarmup_epochs = 2"), 0.1, length);
  const Schedule step(settings("cosine", "warmup_epochs = 2"), 0.1, length);
  for (std::int64_t e = 0; e < 20; ++e) EXPECT_NEAR(step.lr(7 * e), epoch.lr(7 * e), 1e-16);
  for (std::int64_t s = 14; s < 139; ++s) EXPECT_GT(step.lr(s), step.lr(s + 1));
}

// 160 000 iterations of batch 16 on 20 210 images: not whole epochs.
constexpr RunLength kAdeRun{1264, 160'000};

TEST(Schedule, PolyOfMmcvScalesTheDecayingRateDuringWarmup) {
  const Schedule schedule(
      settings("poly", "power = 1\nwarmup_steps = 1500\nwarmup_lr = 6e-11\nwarmup_mode = 'scaled'"),
      6e-5, kAdeRun);
  expect_rates(schedule, 1,
               {{0, 6e-11},
                {1, 4.0059709625e-8},
                {100, 3.9975559650e-6},
                {750, 2.9859404859e-5},
                {1499, 5.9398249790e-5},
                {1500, 5.94375e-5},
                {10'000, 5.625e-5},
                {80'000, 3e-5},
                {159'999, 3.75e-10}});
}

TEST(Schedule, PolyOfMmengineEndsEachPhaseAtItsEndValue) {
  const Schedule schedule(settings("poly",
                                   "warmup_steps = 1500\nwarmup_lr = 6e-11\nwarmup_prefix = true\n"
                                   "endpoint = true"),
                          6e-5, kAdeRun);
  expect_rates(schedule, 1,
               {{0, 6e-11},
                {1, 4.0086644430e-8},
                {100, 4.0027244430e-6},
                {750, 3.0020043322e-5},
                {1499, 6e-5},
                {1500, 6e-5},
                {1501, 5.9999621449e-5},
                {80'000, 3.0283724188e-5},
                {159'999, 0}});
}

TEST(Schedule, PolyOfSegmenter) {
  const Schedule schedule(settings("poly", "power = 0.9\nmin_lr = 1e-5"), 1e-3,
                          RunLength::of_epochs(2527, 64));
  expect_rates(schedule, 1, {{0, 1e-3}, {80'000, 5.4562678233e-4}});
}

TEST(Schedule, StepsOfCifarResnet) {
  const Schedule schedule(settings("step", "milestone_steps = [32000, 48000]"), 0.1,
                          RunLength{391, 64'000});
  for (const auto& [step, rate] :
       Golden{{0, 0.1}, {31'999, 0.1}, {32'000, 0.01}, {47'999, 0.01}, {48'000, 0.001}}) {
    EXPECT_DOUBLE_EQ(schedule.lr(step), rate) << step;
  }
}

TEST(Schedule, StepsAtEpochsAndEverySoManyEpochs) {
  const RunLength length = RunLength::of_epochs(10, 180);
  const Schedule marks(settings("step", "milestones = [100, 150]"), 0.1, length);
  EXPECT_DOUBLE_EQ(marks.lr(999), 0.1);
  EXPECT_DOUBLE_EQ(marks.lr(1000), 0.01);
  EXPECT_DOUBLE_EQ(marks.lr(1500), 0.001);
  const Schedule regular(settings("step", "per = 'epoch'\ndecay_epochs = 30"), 0.1, length);
  EXPECT_DOUBLE_EQ(regular.lr(299), 0.1);
  EXPECT_DOUBLE_EQ(regular.lr(300), 0.01);
  EXPECT_DOUBLE_EQ(regular.lr(600), 0.001);
}

TEST(Schedule, ConstantAfterItsWarmup) {
  const Schedule schedule(settings("constant", "warmup_epochs = 1\nwarmup_lr = 0"), 0.4,
                          RunLength::of_epochs(4, 3));
  EXPECT_DOUBLE_EQ(schedule.lr(0), 0);
  EXPECT_DOUBLE_EQ(schedule.lr(1), 0.1);
  EXPECT_DOUBLE_EQ(schedule.lr(3), 0.3);
  EXPECT_EQ(schedule.lr(4), 0.4);
  EXPECT_EQ(schedule.lr(11), 0.4);
}

TEST(Schedule, LinearReachesHalfwayInTheMiddle) {
  const Schedule schedule(settings("linear", "min_lr = 0.2"), 1.0, RunLength::of_epochs(5, 2));
  EXPECT_EQ(schedule.lr(0), 1.0);
  EXPECT_DOUBLE_EQ(schedule.lr(5), 0.6);
  EXPECT_DOUBLE_EQ(schedule.lr(10), 0.2);
}

TEST(Schedule, CooldownStaysAtTheMinimum) {
  const Schedule schedule(settings("cosine", "cooldown_epochs = 2\nmin_lr = 1e-5"), 1e-3,
                          RunLength::of_epochs(10, 12));
  EXPECT_DOUBLE_EQ(schedule.lr(50), 0.5 * (1e-3 + 1e-5));
  EXPECT_GT(schedule.lr(99), 1e-5);
  EXPECT_DOUBLE_EQ(schedule.lr(100), 1e-5);
  EXPECT_DOUBLE_EQ(schedule.lr(119), 1e-5);
}

TEST(Schedule, AMinimumAboveTheBaseRateRises) {
  const Schedule schedule(settings("cosine", "min_lr = 1e-5"), 7.5e-6, RunLength::of_epochs(1, 10));
  EXPECT_LT(schedule.lr(0), schedule.lr(9));
}

TEST(Schedule, MistakesAreNamed) {
  using test::message_of;
  EXPECT_EQ(message_of<SpecError>([] { settings("cosin", ""); }),
            "run.toml:1:1: schedule.name: unknown schedule \"cosin\" (did you mean \"cosine\"?)");
  EXPECT_EQ(message_of<SpecError>([] { settings("cosine", "power = 2"); }),
            "run.toml:1:1: schedule.power: unknown key; known: per, warmup_epochs, warmup_steps, "
            "warmup_lr, warmup_mode, min_lr, warmup_prefix, endpoint, cooldown_epochs");
  EXPECT_THROW(settings("step", ""), SpecError);
  EXPECT_THROW(settings("step", "milestones = [1]\ndecay_epochs = 2"), SpecError);
  EXPECT_THROW(settings("constant", "warmup_steps = 5\nwarmup_epochs = 1"), SpecError);
  EXPECT_THROW(settings("constant", "warmup_steps = 5\nper = 'epoch'"), SpecError);
  const ScheduleSettings long_warmup = settings("cosine", "warmup_epochs = 5\nper = 'epoch'");
  EXPECT_EQ(
      message_of<SpecError>([&] { Schedule(long_warmup, 1, RunLength::of_epochs(10, 3)); }),
      "schedule: the warm-up of 5 epochs is longer than the run of 3 epochs less its cooldown; "
      "lower warmup_epochs or raise epochs");
  Schedule(long_warmup, 1, RunLength::of_epochs(10, 0));  // evaluation only: never asked for a rate
}

FadeSettings fade_settings(const std::string& toml) {
  const Value table = parse_toml(toml, "run.toml");
  Params params(table, "methods.nose");
  FadeSettings read = read_fade(params, "dilution", 299);
  params.finish();
  return read;
}

TEST(Fade, LinearPerEpochOfTheReference) {
  const FadeSettings settings = fade_settings("");
  const std::vector<std::pair<std::int64_t, double>> golden = {
      {0, 1}, {1, 0.9966555}, {100, 0.6655518}, {150, 0.49833}, {298, 0.0033445}};
  for (const auto& [epoch, lambda] : golden) {
    EXPECT_NEAR(fade(settings, 625 * epoch, 625), lambda, 5e-6) << epoch;
    EXPECT_EQ(fade(settings, 625 * epoch, 625), fade(settings, 625 * epoch + 624, 625));
  }
  EXPECT_EQ(fade(settings, 0, 625), 1.0);
  EXPECT_EQ(fade(settings, 625L * 299, 625), 0.0);
  EXPECT_EQ(fade(settings, 625L * 399, 625), 0.0);
}

TEST(Fade, LinearPerStepFallsEveryStep) {
  const FadeSettings settings = fade_settings("dilution_per = 'step'\ndilution_epochs = 2");
  EXPECT_EQ(fade(settings, 0, 4), 1.0);
  EXPECT_DOUBLE_EQ(fade(settings, 1, 4), 0.875);
  EXPECT_DOUBLE_EQ(fade(settings, 4, 4), 0.5);
  EXPECT_DOUBLE_EQ(fade(settings, 7, 4), 0.125);
  EXPECT_EQ(fade(settings, 8, 4), 0.0);
}

TEST(Fade, CosineAndStep) {
  const FadeSettings cosine = fade_settings("dilution_shape = 'cosine'\ndilution_epochs = 4");
  EXPECT_EQ(fade(cosine, 0, 1), 1.0);
  EXPECT_NEAR(fade(cosine, 1, 1), 0.8535533906, 1e-10);
  EXPECT_NEAR(fade(cosine, 2, 1), 0.5, 1e-15);
  EXPECT_EQ(fade(cosine, 4, 1), 0.0);
  const FadeSettings step =
      fade_settings("dilution_shape = 'step'\ndilution_epochs = 10\ndilution_levels = 2");
  EXPECT_EQ(fade(step, 4, 1), 1.0);
  EXPECT_EQ(fade(step, 5, 1), 0.5);
  EXPECT_EQ(fade(step, 9, 1), 0.5);
  EXPECT_EQ(fade(step, 10, 1), 0.0);
}

TEST(Fade, OverZeroEpochsIsZeroAtOnce) {
  EXPECT_EQ(fade(fade_settings("dilution_epochs = 0"), 0, 10), 0.0);
}

TEST(Fade, LevelsBelongToTheStepShape) {
  EXPECT_THROW(fade_settings("dilution_levels = 2"), SpecError);
}

}  // namespace
}  // namespace ablate
