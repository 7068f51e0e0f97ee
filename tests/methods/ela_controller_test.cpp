#include "methods/ela_controller.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate::methods::ela {
namespace {

using Moments = std::vector<std::optional<LayerMoments>>;

Settings settings_of(const std::string& toml, bool gates = false) {
  const Value table = parse_toml(toml, "test");
  Params params(table, "methods.ela");
  const Settings settings = Settings::read(params, gates);
  params.finish();
  return settings;
}

/// On stages of 6 and 4 blocks: 8 candidates.
Controller controller_of(const std::string& toml, std::uint64_t seed = 3) {
  return {settings_of(toml).controller, candidates_of({6, 4}, 1), seed};
}

Moments moments_of(const std::vector<double>& divergences) {
  Moments moments;
  for (const double d : divergences) {
    const double z = -std::expm1(-d);
    moments.push_back(LayerMoments{d, d * d, z, z * z});
  }
  return moments;
}

std::vector<int> skipped_of(const Controller& controller) {
  std::vector<int> numbers;
  for (std::size_t i = 0; i < controller.skipped().size(); ++i) {
    if (controller.skipped()[i]) numbers.push_back(static_cast<int>(i) + 1);
  }
  return numbers;
}

const Moments kEightMoments = moments_of({.010, .030, .020, .200, .050, .045, 1.2, 6.0});

TEST(ElaController, DefaultNeedsTwoDecisionsInARow) {
  Controller controller = controller_of("");
  controller.observe(kEightMoments);
  const Decision first = controller.decide(1, false);
  EXPECT_EQ(skipped_of(controller), std::vector<int>{});
  EXPECT_EQ(first.flips, 0);
  ASSERT_EQ(first.fits.size(), 1U);
  EXPECT_NEAR(first.fits[0].beta.alpha, 0.7444238146, 1e-9);
  EXPECT_NEAR(first.fits[0].tau, 0.5068319954, 1e-9);
  EXPECT_NEAR(first.score[5].value(), .381767591, 1e-9);
  controller.observe(kEightMoments);
  EXPECT_EQ(controller.decide(2, false).flips, 4);
  EXPECT_EQ(skipped_of(controller), (std::vector<int>{1, 2, 3, 6}));
}

TEST(ElaController, AverageOfEpochsIsWhatDecides) {
  Controller controller = controller_of("ema = 0.5\npatience = 1");
  controller.observe(kEightMoments);
  Moments other = kEightMoments;
  other[0] = moments_of({12.0}).front();
  controller.observe(other);
  EXPECT_DOUBLE_EQ(controller.moments()[0]->mean, 6.005);
  controller.decide(2, false);
  EXPECT_FALSE(controller.skipped()[0]);
}

TEST(ElaController, ControlsSkipTheirNumberWithoutLooking) {
  const std::vector<std::pair<std::string, std::vector<int>>> rows{
      {"preset = 'first_m'\nskip = 3", {1, 2, 3}},
      {"preset = 'last_m'\nskip = 3", {6, 7, 8}},
      // Second, fourth and sixth block of the first stage, second and fourth of the other.
      {"preset = 'every_other'", {1, 3, 5, 6, 8}},
      {"preset = 'every_other'\nskip = 2", {1, 6}},
      {"preset = 'every_other'\nskip = 3", {1, 3, 6}},
      // Blocks count from 0 and include the first of each stage.
      {"preset = 'given'\nlayers = [2, 9]", {2, 8}}};
  for (const auto& [toml, expected] : rows) {
    Controller controller = controller_of(toml);
    const Decision decision = controller.decide(0, true);
    EXPECT_EQ(skipped_of(controller), expected) << toml;
    EXPECT_EQ(decision.flips, std::ssize(expected));
    EXPECT_TRUE(decision.fits.empty());
  }
  const auto places = candidates_of({6, 4}, 1);
  EXPECT_EQ(most_skippable(settings_of("preset = 'every_other'").controller, places), 5);
  EXPECT_EQ(most_skippable(settings_of("preset = 'given'\nlayers = [0, 2, 7]").controller, places),
            2)
      << "the first block of a stage is none";
}

TEST(ElaController, RandomChoicesFollowSeedAndDrawAlone) {
  const auto mask = [](std::uint64_t seed, int draw) {
    Controller controller =
        controller_of("preset = 'random_m'\nskip = 4\ndraw = " + std::to_string(draw), seed);
    controller.decide(5, false);
    const std::vector<bool> first = controller.skipped();
    controller.decide(9, true);
    EXPECT_EQ(first, controller.skipped()) << "one draw for the whole run";
    EXPECT_EQ(std::ranges::count(first, true), 4);
    return first;
  };
  EXPECT_EQ(mask(1, 0), mask(1, 0));
  int equal = 0;
  for (int i = 1; i <= 10; ++i)
    equal += (mask(1, 0) == mask(1, i)) + (mask(1, 0) == mask(1 + i, 0));
  EXPECT_LT(equal, 4) << "one of 70 masks each";
}

TEST(ElaController, SoftChoicesSkipAsOftenAsScoresSay) {
  Controller controller = controller_of("preset = 'bqm_soft'\nscale = 'median'");
  std::vector<int> counts(8);
  constexpr int kEpochs = 2000;
  Decision decision;
  for (int epoch = 1; epoch <= kEpochs; ++epoch) {
    controller.observe(kEightMoments);
    decision = controller.decide(epoch, false);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += controller.skipped()[i];
  }
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = 1.0 - decision.score[i].value();
    EXPECT_NEAR(counts[i] / static_cast<double>(kEpochs), expected, 0.05) << i;
  }
  controller.decide(kEpochs + 1, true);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    EXPECT_EQ(controller.skipped()[i], decision.score[i].value() < 0.5);
  }
}

TEST(ElaController, StagesByThemselves) {
  // Alone, the second stage (candidates 6 to 8) has its own median.
  const std::string settings = "patience = 1\nq = 0.4\nmost_skipped = 1.0\n";
  Controller all = controller_of(settings);
  Controller each = controller_of(settings + "compare = 'stage'");
  const Moments moments = moments_of({.01, .02, .03, .04, .05, 1.0, 2.0, 3.0});
  for (Controller* controller : {&all, &each}) controller->observe(moments);
  all.decide(1, true);
  EXPECT_EQ(each.decide(1, true).fits.size(), 2U);
  EXPECT_FALSE(all.skipped()[5]);
  EXPECT_TRUE(each.skipped()[5]);
  EXPECT_FALSE(each.skipped()[7]);
}

TEST(ElaController, WithoutMeasurementMasksOnlyGrow) {
  Controller controller = controller_of("patience = 1");
  controller.observe(kEightMoments);
  controller.decide(1, false);
  ASSERT_TRUE(controller.skipped()[0]);
  Moments rest = moments_of({9, 9, 9, .200, .050, .9, 1.2, 6.0});
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (controller.skipped()[i]) rest[i].reset();
  }
  controller.observe(rest);
  const Decision second = controller.decide(2, false);
  EXPECT_TRUE(controller.skipped()[0]);
  EXPECT_FALSE(second.score[0]) << "not held against the others";
  EXPECT_TRUE(second.score[3]);
}

TEST(ElaController, GoesOnFromItsSavedState) {
  Controller whole = controller_of("");
  whole.observe(kEightMoments);
  whole.decide(1, false);
  Controller second = controller_of("");
  second.load(nlohmann::json::parse(whole.save().dump()));
  Moments other = kEightMoments;
  other[2] = moments_of({0.7}).front();
  for (int epoch = 2; epoch < 5; ++epoch) {
    whole.observe(other);
    second.observe(other);
    EXPECT_EQ(whole.decide(epoch, false).score, second.decide(epoch, false).score);
    EXPECT_EQ(whole.skipped(), second.skipped());
    EXPECT_EQ(whole.save(), second.save());
  }
  EXPECT_FALSE(skipped_of(whole).empty());
}

TEST(ElaController, RefusesDivergencesThatAreNone) {
  Controller controller = controller_of("");
  Moments moments = kEightMoments;
  moments[3]->mean = std::nan("");
  controller.observe(moments);
  EXPECT_THROW(controller.decide(1, false), Error);
  EXPECT_EQ(skipped_of(controller), std::vector<int>{});
}

TEST(ElaSettings, PlanByDefaultAndByHand) {
  const SearchPlan usual = settings_of("").plan(60);
  EXPECT_EQ(usual.warmup, 6);
  EXPECT_EQ(usual.freeze, 30);
  EXPECT_FALSE(usual.decides(5));
  EXPECT_TRUE(usual.decides(6));
  EXPECT_TRUE(usual.decides(30));
  EXPECT_FALSE(usual.decides(31));
  const SearchPlan sparse =
      settings_of("warmup_epochs = 3\nfreeze_epoch = 20\nperiod = 5").plan(60);
  for (int epoch = 0; epoch < 25; ++epoch) {
    EXPECT_EQ(sparse.decides(epoch),
              epoch == 3 || epoch == 8 || epoch == 13 || epoch == 18 || epoch == 20);
  }
  // Controls need no divergences and may begin at once.
  EXPECT_TRUE(settings_of("preset = 'every_other'\nwarmup_epochs = 0").plan(8).decides(0));
  EXPECT_FALSE(settings_of("warmup_epochs = 0").plan(8).decides(0));
}

TEST(ElaSettings, RefusesPlansThatCannotSkip) {
  EXPECT_THROW(settings_of("").plan(2), SpecError) << "two decisions and a frozen epoch";
  EXPECT_NO_THROW(settings_of("").plan(3));
  EXPECT_NO_THROW(settings_of("patience = 1").plan(2));
  EXPECT_THROW(settings_of("freeze_epoch = 6\nwarmup_epochs = 6").plan(60), SpecError);
  EXPECT_NO_THROW(settings_of("freeze_epoch = 6\nwarmup_epochs = 6\npatience = 1").plan(60));
  EXPECT_THROW(settings_of("freeze_epoch = 60").plan(60), SpecError);
  EXPECT_THROW(settings_of("").plan(0), SpecError);
}

TEST(ElaSettings, KnowsWhichSettingsGoTogether) {
  EXPECT_EQ(settings_of("divergence = 'shared'").leave_out(), 2);
  EXPECT_EQ(settings_of("").leave_out(), 1);
  EXPECT_THROW(settings_of("divergence = 'bernoulli'"), SpecError);
  EXPECT_THROW(settings_of("divergence = 'padded'", true), SpecError);
  EXPECT_EQ(settings_of("", true).divergence, Divergence::Bernoulli);
  EXPECT_THROW(settings_of("mode = 'recur'", true), SpecError) << "the gated form is a recurrence";
  EXPECT_NO_THROW(settings_of("mode = 'reuse'", true));
  EXPECT_THROW(settings_of("preset = 'top_m'"), SpecError) << "how many?";
  EXPECT_THROW(settings_of("preset = 'top_m'\nskip = 2\nq = 0.3"), SpecError) << "q has no meaning";
  EXPECT_THROW(settings_of("preset = 'random_m'\nskip = 2\ndivergence = 'padded'"), SpecError);
  EXPECT_THROW(settings_of("preset = 'threshold'\nq = 0.3"), SpecError);
  EXPECT_NO_THROW(settings_of("preset = 'threshold'\nthreshold = 0.3"));
  for (const char* preset :
       {"ebqm", "bqm", "bqm_rank", "ebqm_layer", "bqm_soft", "threshold", "every_other"}) {
    EXPECT_NO_THROW(settings_of(std::string("preset = '") + preset + "'")) << preset;
  }
}

// A textbook mapping to a Beta target skips a fixed number; a fit of the same data need not.
TEST(ElaSettings, PresetsAreTheReadingsTheyAreNamedFor) {
  Controller rank = controller_of("preset = 'bqm_rank'");
  rank.observe(kEightMoments);
  rank.decide(1, true);
  // round(8 I(0.2; 2, 5)) = round(2.757): the three smallest.
  EXPECT_EQ(skipped_of(rank), (std::vector<int>{1, 2, 3}));
  Controller plain = controller_of("preset = 'bqm'\nq = 0.3");
  plain.observe(kEightMoments);
  plain.decide(1, true);
  EXPECT_EQ(skipped_of(plain), std::vector<int>{}) << "no scale: the quantile is near 0";
  Controller scaled = controller_of("preset = 'bqm'\nq = 0.3\nscale = 'median'");
  scaled.observe(kEightMoments);
  scaled.decide(1, true);
  EXPECT_EQ(skipped_of(scaled), (std::vector<int>{1, 2, 3}));
  Controller layer = controller_of("preset = 'ebqm_layer'\nthreshold = 0.05");
  layer.observe(kEightMoments);
  layer.decide(1, true);
  EXPECT_EQ(skipped_of(layer), (std::vector<int>{1, 2, 3, 5, 6})) << "1 - exp(-D) without noise";
}

}  // namespace
}  // namespace ablate::methods::ela
