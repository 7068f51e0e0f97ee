#include "results/blocked_model.h"

#include <cmath>
#include <optional>
#include <vector>

#include <boost/math/distributions/fisher_f.hpp>
#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

using Grid = std::vector<std::vector<std::optional<double>>>;

std::vector<Observation> observations(const Grid& grid) {
  std::vector<Observation> result;
  for (std::size_t v = 0; v < grid.size(); ++v) {
    for (std::size_t b = 0; b < grid[v].size(); ++b) {
      if (grid[v][b]) result.push_back({v, b, *grid[v][b]});
    }
  }
  return result;
}

double variance_ratio(const BlockedModel& model) {
  const double mean_square = model.ss_variants / static_cast<double>(model.variants - 1);
  return mean_square / (model.ss_residual / model.df);
}

// Montgomery, Design and Analysis of Experiments, example 4.1: yield of vascular grafts at four
// extrusion pressures in six batches of resin.
Grid vascular_graft() {
  return {{90.3, 89.2, 98.2, 93.9, 87.4, 97.9},
          {92.5, 89.5, 90.6, 94.7, 87.0, 95.8},
          {85.5, 90.8, 89.6, 86.2, 88.0, 93.4},
          {82.5, 89.5, 85.6, 87.4, 78.9, 90.7}};
}

TEST(BlockedModel, MontgomerysVascularGraft) {
  const BlockedModel model = fit_blocked_model(observations(vascular_graft()), 4, 0);
  EXPECT_TRUE(model.complete);
  EXPECT_EQ(model.df, 15);
  EXPECT_NEAR(model.ss_variants, 178.17, 0.005);
  EXPECT_NEAR(model.ss_residual, 109.89, 0.005);
  EXPECT_NEAR(model.residual_sd * model.residual_sd, 7.33, 0.005);
  EXPECT_NEAR(variance_ratio(model), 8.11, 0.005);
  const boost::math::fisher_f f(3, 15);
  EXPECT_NEAR(cdf(complement(f, variance_ratio(model))), 0.0019, 5e-5);
}

TEST(BlockedModel, ContrastsOfTheVascularGraft) {
  const BlockedModel model = fit_blocked_model(observations(vascular_graft()), 4, 0);
  EXPECT_FALSE(model.contrasts[0].has_value());
  // Means 92.82, 91.68, 88.92, 85.77; least significant difference 3.33 (Montgomery, 4.1.3).
  const std::vector<double> difference = {-1.1333333, -3.9, -7.05};
  const std::vector<double> p = {0.4794567, 0.0247127, 0.0004137};  // statsmodels OLS
  for (std::size_t v = 1; v < 4; ++v) {
    const Contrast& contrast = *model.contrasts[v];
    EXPECT_EQ(contrast.pairs, 6U);
    EXPECT_NEAR(contrast.variance_factor, 2.0 / 6, 1e-12);
    EXPECT_NEAR(contrast.difference, difference[v - 1], 1e-7);
    EXPECT_NEAR(contrast.test->p, p[v - 1], 1e-7);
    const double half = (contrast.test->interval.high - contrast.test->interval.low) / 2;
    EXPECT_NEAR(half, 3.33, 0.005);
  }
}

TEST(BlockedModel, MontgomerysIncompleteBlocks) {
  // Example 4.5: four catalysts in four batches of three (balanced incomplete blocks).
  const std::nullopt_t none = std::nullopt;
  const Grid catalyst = {
      {73, 74, none, 71}, {none, 75, 67, 72}, {73, 75, 68, none}, {75, none, 72, 75}};
  const BlockedModel model = fit_blocked_model(observations(catalyst), 4, 0);
  EXPECT_FALSE(model.complete);
  EXPECT_EQ(model.df, 5);
  EXPECT_NEAR(model.ss_variants, 22.75, 1e-9);
  EXPECT_NEAR(model.ss_residual, 3.25, 1e-9);
  EXPECT_NEAR(variance_ratio(model), 11.67, 0.005);
  EXPECT_EQ(model.contrasts[3]->pairs, 2U);
}

TEST(BlockedModel, MissingRunsMatchGeneralLeastSquares) {
  Grid grid = vascular_graft();
  grid[3][4] = grid[1][0] = grid[0][5] = std::nullopt;
  const BlockedModel model = fit_blocked_model(observations(grid), 4, 0);
  EXPECT_EQ(model.df, 12);
  EXPECT_NEAR(model.ss_residual, 85.27899160, 1e-7);
  // numpy.linalg.lstsq on the full dummy design.
  const std::vector<double> difference = {-1.842857143, -3.793277311, -6.242857143};
  const std::vector<double> se = {1.745187174, 1.639317901, 1.745187174};
  const std::vector<std::size_t> pairs = {4, 5, 4};
  for (std::size_t v = 1; v < 4; ++v) {
    EXPECT_NEAR(model.contrasts[v]->difference, difference[v - 1], 1e-8);
    EXPECT_NEAR(model.contrasts[v]->test->se, se[v - 1], 1e-8);
    EXPECT_EQ(model.contrasts[v]->pairs, pairs[v - 1]);
  }
}

TEST(BlockedModel, TwoVariantsAreThePairedT) {
  const Grid grid = {{71.2, 70.8, 71.9, 71.0}, {71.9, 71.1, 72.0, 71.4}};
  const BlockedModel model = fit_blocked_model(observations(grid), 2, 0);
  const TTest paired =
      paired_t(std::vector<double>{71.9 - 71.2, 71.1 - 70.8, 72.0 - 71.9, 71.4 - 71.0});
  EXPECT_NEAR(model.contrasts[1]->test->p, paired.p, 1e-10);
  EXPECT_NEAR(model.contrasts[1]->test->se, paired.se, 1e-10);
}

TEST(BlockedModel, BaselineChangesSignsOnly) {
  const auto all = observations(vascular_graft());
  const BlockedModel first = fit_blocked_model(all, 4, 0), last = fit_blocked_model(all, 4, 3);
  EXPECT_NEAR(first.contrasts[3]->difference, -last.contrasts[0]->difference, 1e-10);
  EXPECT_NEAR(first.contrasts[3]->test->p, last.contrasts[0]->test->p, 1e-12);
}

TEST(BlockedModel, OneSeedHasDifferencesButNoTest) {
  const BlockedModel model = fit_blocked_model(observations({{70.0}, {71.0}, {72.5}}), 3, 0);
  EXPECT_EQ(model.df, 0);
  EXPECT_DOUBLE_EQ(model.contrasts[2]->difference, 2.5);
  EXPECT_FALSE(model.contrasts[2]->test.has_value());
}

TEST(BlockedModel, ExactlyAdditiveDataHaveNoNoise) {
  const Grid grid = {{70.1, 70.3, 70.7}, {70.2, 70.4, 70.8}, {71.2, 71.4, 71.8}};
  const BlockedModel model = fit_blocked_model(observations(grid), 3, 0);
  EXPECT_EQ(model.residual_sd, 0);
  EXPECT_EQ(model.contrasts[1]->test->p, 0);
}

TEST(BlockedModel, WhatSharesNoSeedIsNotCompared) {
  const std::nullopt_t none = std::nullopt;
  const Grid grid = {{70.0, 71.0, none, none},
                     {70.5, 71.7, none, none},
                     {none, none, 75.0, 76.0},
                     {none, none, none, none}};
  const BlockedModel model = fit_blocked_model(observations(grid), 4, 0);
  EXPECT_EQ(model.variants, 2U);
  EXPECT_EQ(model.df, 1);
  EXPECT_TRUE(model.contrasts[1].has_value());
  EXPECT_FALSE(model.contrasts[2].has_value());
  EXPECT_FALSE(model.contrasts[3].has_value());
  EXPECT_EQ(fit_blocked_model({}, 2, 0).observations, 0U);
}

TEST(BlockedModel, VariantsLinkedThroughOthersAreCompared) {
  // Variant 2 shares no seed with the baseline, but both share seeds with variant 1.
  const std::nullopt_t none = std::nullopt;
  const Grid grid = {{10, 20, none, none}, {11, 21, 31, 41}, {none, none, 33, 43}};
  const BlockedModel model = fit_blocked_model(observations(grid), 3, 0);
  EXPECT_NEAR(model.contrasts[2]->difference, 3, 1e-9);
  EXPECT_EQ(model.contrasts[2]->pairs, 0U);
  EXPECT_NEAR(model.contrasts[2]->variance_factor, 2, 1e-9);  // two steps of 2 / 2 each
}

TEST(BlockedModel, RefusesValuesThatAreNotFinite) {
  EXPECT_THROW(fit_blocked_model(observations({{NAN, 1.0}, {1.0, 2.0}}), 2, 0), BugError);
}

}  // namespace
}  // namespace ablate
