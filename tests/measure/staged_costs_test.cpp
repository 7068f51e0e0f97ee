#include <gtest/gtest.h>

#include "runner/measure/mac_counter.h"
#include "tests/support/models.h"

// Parameters and multiply-accumulates of hierarchical transformers and of focused linear attention.

namespace ablate {
namespace {

/// Of weights that are all 0: what memory happens to hold may be slow to compute with.
ModelCost cost_of(Model& model) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model.parameters()) parameter.zero_();
  return measure_cost(model);
}

struct StagedRow {
  const char* name;
  std::int64_t classes, parameters, macs;
};

class StagedCosts : public testing::TestWithParam<StagedRow> {};

TEST_P(StagedCosts, AreTheExactOnes) {
  const StagedRow& row = GetParam();
  const ModelCost cost = cost_of(*test::make_model(row.name, "", row.classes));
  EXPECT_EQ(cost.parameters, row.parameters);
  EXPECT_EQ(cost.macs, row.macs);
}

// The authors of FLatten-PVT count a norm of 512 channels that they never apply.
constexpr std::int64_t kIdleNorm = 1024;

INSTANTIATE_TEST_SUITE_P(
    Flatten, StagedCosts,
    testing::Values(StagedRow{"flatten_swin_tiny_patch4_224", 1000, 29'192'384, 4'483'341'312},
                    StagedRow{"flatten_swin_small_patch4_224", 1000, 50'510'288, 8'733'649'920},
                    StagedRow{"flatten_swin_base_patch4_224", 1000, 88'972'488, 15'421'313'024},
                    StagedRow{"flatten_pvt_tiny", 1000, 12'150'504 - kIdleNorm, 2'037'406'720},
                    StagedRow{"flatten_pvt_small", 1000, 21'670'248 - kIdleNorm, 4'029'945'856},
                    StagedRow{"flatten_cswin_tiny", 1000, 21'201'768, 4'324'253'184},
                    StagedRow{"flatten_deit_tiny_patch16_224", 1000, 6'193'576, 1'144'692'480},
                    StagedRow{"flatten_deit_small_patch16_224", 1000, 22'983'016, 4'380'900'864},
                    StagedRow{"flatten_deit_base_patch16_224", 1000, 88'412'392, 17'127'865'344},
                    StagedRow{"flatten_swin_micro_a_patch2_32", 100, 2'322'228, 84'599'808},
                    StagedRow{"swin_micro_a_patch2_32", 100, 2'269'952, 81'748'992},
                    StagedRow{"flatten_swin_micro_b_patch2_32", 100, 1'164'140, 32'103'168}),
    [](const auto& row) { return row.param.name; });

// Liu et al., ICCV 2021, table 1; parameters as timm counts them.
TEST(StagedCostsOfParents, SwinHasThePublishedOnes) {
  for (const auto& [name, parameters, gmacs] :
       {std::tuple{"swin_tiny_patch4_window7_224", 28'288'354, 4.5},
        {"swin_small_patch4_window7_224", 49'606'258, 8.7},
        {"swin_base_patch4_window7_224", 87'768'224, 15.4}}) {
    const ModelCost cost = cost_of(*test::make_model(name, "", 1000));
    EXPECT_EQ(cost.parameters, parameters) << name;
    EXPECT_NEAR(1e-9 * static_cast<double>(cost.macs), gmacs, 0.06) << name;
  }
}

// Han et al., ICCV 2023, table 1, in millions and billions as printed there.
TEST(StagedCostsOfParents, PvtAndCswinHaveThePublishedOnes) {
  for (const auto& [name, millions, rounded, gmacs] : {std::tuple{"pvt_tiny", 13.2, 0.05, 1.9},
                                                       {"pvt_small", 24.5, 0.05, 3.8},
                                                       {"cswin_tiny", 23.0, 0.75, 4.3}}) {
    const ModelCost cost = cost_of(*test::make_model(name, "", 1000));
    EXPECT_NEAR(1e-6 * static_cast<double>(cost.parameters), millions, rounded) << name;
    EXPECT_NEAR(1e-9 * static_cast<double>(cost.macs), gmacs, 0.06) << name;
  }
}

// Cutting the same share of every group of every block.
TEST(StagedCostsOfCuts, AreTheExactOnes) {
  struct Row {
    std::int64_t quarters, parameters, macs;
  };
  for (const Row& row : {Row{3, 22'496'992, 3'398'824'704}, Row{2, 15'789'952, 2'321'533'440},
                         Row{1, 9'082'912, 1'251'467'520}}) {
    const auto model = test::make_model("flatten_swin_tiny_patch4_224", "", 1000);
    ParameterSlicer slicer;
    for (Block* block : model->blocks()) {
      for (ChannelOwner* owner : {static_cast<ChannelOwner*>(block->mixer()),
                                  static_cast<ChannelOwner*>(&block->mlp())}) {
        for (ChannelGroup* group : owner->channel_groups()) {
          std::vector<std::int64_t> kept;
          for (std::int64_t channel = 0; channel < group->channels(); ++channel) {
            if (4 * (channel % group->width) < row.quarters * group->width) kept.push_back(channel);
          }
          owner->keep_channels(*group, kept, slicer);
        }
      }
    }
    const ModelCost cost = cost_of(*model);
    EXPECT_EQ(cost.parameters, row.parameters) << row.quarters;
    EXPECT_EQ(cost.macs, row.macs) << row.quarters;
  }
}

}  // namespace
}  // namespace ablate
