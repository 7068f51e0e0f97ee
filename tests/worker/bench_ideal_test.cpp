#include "runner/worker/bench_ideal.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/worker/model_options.h"
#include "tests/core/expect_error.h"
#include "tests/support/gpu.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using test::json_of_ablate_train;
using test::run_ablate_train;

/// 17 tokens, three blocks.
ModelOptions small_vit() {
  ModelOptions options;
  options.model = "vit";
  options.model_params = "{ image_size = 16, embed_dim = 16, depth = 3, num_heads = 2 }";
  options.classes = 4;
  return options;
}

std::string counts_of(const std::string& methods) {
  std::string text;
  for (const BlockTokens& tokens : block_tokens(small_vit().structure_with(methods))) {
    text += cat(tokens.attention, "/", tokens.mlp, " ");
  }
  return text;
}

TEST(BenchIdeal, CountsTheTokensOfEachBranch) {
  EXPECT_EQ(counts_of("[]"), "17/17 17/17 17/17 ");
  EXPECT_EQ(counts_of("[{ name = 'nose', layers = [1] }]"), "17/17 0/17 17/17 ");
  EXPECT_EQ(counts_of("[{ name = 'tome', r = 3 }]"), "17/14 14/11 11/8 ");
  EXPECT_EQ(counts_of("[{ name = 'tome', r = 3 }, { name = 'nose', layers = [0] }]"),
            "0/17 17/14 14/11 ");
}

TEST(BenchIdeal, WeighsBranchesByTheirTokens) {
  const std::vector<BlockTokens> dense{{10, 10}, {10, 10}};
  const BranchCosts costs{.attention = 3.0, .mlp = 5.0};
  EXPECT_DOUBLE_EQ(ideal_saving(dense, dense, costs), 0.0);
  EXPECT_DOUBLE_EQ(ideal_saving({{0, 10}, {10, 10}}, dense, costs), 3.0);
  EXPECT_DOUBLE_EQ(ideal_saving({{10, 8}, {8, 5}}, dense, costs), 5 * 0.2 + 3 * 0.2 + 5 * 0.5);
}

#if ABLATE_HAS_CUDA

TEST(BenchIdealGpu, MeasuresBranchesUnderEveryProtocol) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  ModelOptions options = small_vit();
  options.model_params = "{ image_size = 32, embed_dim = 96, depth = 2, num_heads = 3 }";
  for (const BenchKind kind : {BenchKind::Infer, BenchKind::Train}) {
    for (const char* dtype : {"bf16", "fp32"}) {
      const Protocol protocol{.kind = kind, .dtype = dtype, .batch = 8, .device = "cuda"};
      const BranchCosts costs = measure_branches(options.structure_with("[]"), protocol,
                                                 {.budget_seconds = 0.05, .warm_up = 1});
      EXPECT_GT(costs.attention, 0.0) << protocol.name();
      EXPECT_GT(costs.mlp, 0.0) << protocol.name();
    }
  }
  const Structure removed = options.structure_with("[{ name = 'nose', layers = [1] }]");
  EXPECT_THROW(measure_branches(removed, {.device = "cuda"}, {}), SpecError);
}

#endif

TEST(BenchIdeal, RefusesModelsWithoutBlocksAndThoseOfSeveralStages) {
  const auto message = [](const char* model) {
    ModelOptions options;
    options.model = model;
    return test::message_of<SpecError>([&] { block_tokens(options.structure_with("[]")); });
  };
  EXPECT_NE(message("resnet20").find("resnet20"), std::string::npos);
  EXPECT_NE(message("swin_micro_a_patch2_32").find("differ in width"), std::string::npos);
}

TEST(BenchModelOptions, StandInForAStructureFile) {
  const ModelOptions options = small_vit();
  const std::string methods = "[{ name = 'tome', r = 3 }]";
  const nlohmann::json report = json_of_ablate_train(
      {"bench", "--model", options.model, "--model-params", options.model_params, "--classes", "4",
       "--methods", methods, "--against-methods", "[]", "--batch", "2", "--budget-seconds", "0"});
  EXPECT_EQ(report["rows"][0]["structure_hash"], options.structure_with(methods).hash());
  EXPECT_EQ(report["rows"][0]["baseline_hash"], options.structure_with("[]").hash());
}

TEST(BenchModelOptions, SayWhatGoesTogether) {
  const auto errors = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "bench");
    return run_ablate_train(arguments).errors;
  };
  EXPECT_NE(errors({}).find("--model NAME"), std::string::npos);
  EXPECT_NE(errors({"--model", "vit", "--dtype", "bf16"}).find("--device cuda"), std::string::npos);
  EXPECT_NE(errors({"--model", "vit", "--ideal"}).find("baseline"), std::string::npos);
  EXPECT_NE(errors({"--against-methods", "[]"}).find("--model"), std::string::npos);
  EXPECT_NE(errors({"--model", "swin_micro_b_patch2_32", "--class-token-block"}).find("all tokens"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
