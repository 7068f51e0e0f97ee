#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using test::json_of_ablate_train;
using test::run_ablate_train;

/// One short run that all tests here look at.
class Eval : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    out_ = new test::TempFolder;
    const RunSpec spec = test::resolve_small(R"(
model = { name = "vit", image_size = 8, patch_size = 4, embed_dim = 16, depth = 1, num_heads = 2 }
epochs = 2
global_batch = 32
ema_decay = 0.5
optimizer = { name = "adamw", lr = 1e-2 }
[dataset]
name = "synthetic"
train_size = 96
test_size = 50
holdout = 32
image_size = 8
classes = 4
)");
    paths_ = new RunPaths(out_->path(), spec.id());
    record_ = new test::RunRecord(test::run_small(spec, out_->path()));
    std::ofstream(paths_->spec()) << spec.canonical();
  }
  static void TearDownTestSuite() {
    delete record_;
    delete paths_;
    delete out_;
  }

  static double last(const std::string& metric) {
    return record_->series.at(metric).rbegin()->second;
  }

  static inline test::TempFolder* out_ = nullptr;
  static inline RunPaths* paths_ = nullptr;
  static inline test::RunRecord* record_ = nullptr;
};

TEST_F(Eval, FindsTheNumbersThatTheRunDeclared) {
  const auto report = json_of_ablate_train({"eval", paths_->directory.string()});
  EXPECT_EQ(report.at("n"), 50);
  EXPECT_EQ(report.at("weights"), "raw");
  for (const char* metric : {"top1", "top5", "loss"}) {
    EXPECT_EQ(report.at("metrics").at(metric).get<double>(), record_->finals.at(metric)) << metric;
  }
}

TEST_F(Eval, KnowsTheOtherSplitsAndTheAverage) {
  const auto holdout = json_of_ablate_train(
      {"eval", paths_->final_directory().string(), "--split", "holdout", "--batch", "7"});
  EXPECT_EQ(holdout.at("n"), 32);
  EXPECT_NEAR(holdout.at("metrics").at("loss").get<double>(), last("holdout/loss"), 1e-6);
  const auto average = json_of_ablate_train({"eval", paths_->directory.string(), "--ema"});
  EXPECT_NEAR(average.at("metrics").at("loss").get<double>(), last("ema/loss"), 1e-6);
  EXPECT_NE(average.at("metrics").at("loss"), record_->finals.at("loss"));
}

TEST_F(Eval, RanksShareTheImagesAndCountEachOnce) {
  // 50 images in batches of 15, rounded up to 16 for two ranks: the last one is padded.
  const auto report =
      json_of_ablate_train({"eval", paths_->directory.string(), "--batch", "15"}, 2);
  EXPECT_EQ(report.at("n"), 50);
  EXPECT_EQ(report.at("metrics").at("top1").get<double>(), record_->finals.at("top1"));
  EXPECT_NEAR(report.at("metrics").at("loss").get<double>(), record_->finals.at("loss"), 1e-6);
}

TEST_F(Eval, AFolderThatIsNoRunIsRefused) {
  const CapturedRun run = run_ablate_train({"eval", out_->path().string()});
  EXPECT_EQ(run.status.code, 2);
  EXPECT_NE(run.errors.find("expected the folder of a run"), std::string::npos) << run.errors;
}

}  // namespace
}  // namespace ablate
