#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/train/finals.h"
#include "runner/train/run_data.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using test::json_of_ablate_train;
using test::run_ablate_train;

constexpr const char* kRun = R"(
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 16, depth = 3, num_heads = 2 }
epochs = 2
global_batch = 32
precision = "fp64"
optimizer = { name = "adamw", lr = 1e-2 }
[dataset]
name = "synthetic"
train_size = 96
test_size = 50
image_size = 16
classes = 4
)";

/// A dense run, one of equal shape that began elsewhere, and one that lost attention and tokens.
class Analyse : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    out_ = new test::TempFolder;
    dense_ = run("");
    other_ = run("", "seed = 9\n");
    cut_ =
        run("[[methods]]\nname = 'nose'\nlayers = [1]\ndirect = true\n"
            "[[methods]]\nname = 'tome'\nr = 2\n");
  }
  static void TearDownTestSuite() { delete out_; }

  static std::string run(const std::string& methods, const std::string& top = "") {
    const RunSpec spec = test::resolve_small(top + kRun + methods);
    test::run_small(spec, out_->path());
    const RunPaths paths(out_->path(), spec.id());
    std::ofstream(paths.spec()) << spec.canonical();
    return paths.directory.string();
  }

  static std::shared_ptr<Model> model_of(const std::string& folder) {
    return load_final_model(read_finals(std::filesystem::path(folder) / "final"), false,
                            at::kDouble);
  }

  static inline test::TempFolder* out_ = nullptr;
  static inline std::string dense_, other_, cut_;
};

/// All test images in one batch.
at::Tensor images_of(const std::string& folder) {
  const RunSpec spec = RunSpec::from_json(
      nlohmann::json::parse(std::ifstream(std::filesystem::path(folder) / "spec.json")));
  Params params(spec.training, "run");
  TrainingOptions options = TrainingOptions::read(params);
  options.global_batch = 50;
  const RunData data(spec, options, {}, {.rank = 0, .size = 1});
  const auto loader = data.eval_loader(data.splits().test);
  loader->start();
  return loader->next().images.to(at::kDouble).clone();
}

double entropy_of(const at::Tensor& tokens) {
  return tokens.flatten(0, 1).std(0, false).log().sum().item<double>();
}

TEST_F(Analyse, MeasuresEntropiesOfBranchesAndStream) {
  const auto report = json_of_ablate_train({"analyse", dense_});
  EXPECT_EQ(report.at("n"), 50);
  const auto model = model_of(dense_);
  model->eval();
  const at::NoGradGuard no_grad;
  ForwardState state;
  for (int block = 0; block < 3; ++block) {
    for (const char* tap : {"", ".attn", ".mlp"}) state.taps[cat("blocks.", block, tap)];
  }
  model->forward(images_of(dense_), state);
  for (int block = 0; block < 3; ++block) {
    const auto tap = [&](const char* part) { return state.taps[cat("blocks.", block, part)]; };
    const auto& row = report.at("entropy").at(static_cast<std::size_t>(block));
    EXPECT_NEAR(row.at("attn").get<double>(), entropy_of(tap(".attn")), 1e-8);
    EXPECT_NEAR(row.at("mlp").get<double>(), entropy_of(tap(".mlp")), 1e-8);
    EXPECT_NEAR(row.at("out").get<double>(), entropy_of(tap("")), 1e-8);
    EXPECT_NEAR(row.at("mixed").get<double>(), entropy_of(tap("") - tap(".mlp")), 1e-8);
  }
}

TEST_F(Analyse, IsTheSameOnTwoRanks) {
  const auto alone = json_of_ablate_train({"analyse", dense_, "--batch", "12"});
  const auto shared = json_of_ablate_train({"analyse", dense_, "--batch", "12"}, 2);
  for (std::size_t block = 0; block < 3; ++block) {
    EXPECT_NEAR(alone.at("entropy")[block].at("attn").get<double>(),
                shared.at("entropy")[block].at("attn").get<double>(), 1e-8);
  }
  ASSERT_GT(alone.at("spectrum").size(), 3U);
  for (std::size_t i = 0; i < alone.at("spectrum").size(); ++i) {
    EXPECT_NEAR(alone.at("spectrum")[i].at("log_amplitude").get<double>(),
                shared.at("spectrum")[i].at("log_amplitude").get<double>(), 1e-8);
  }
}

TEST_F(Analyse, LeavesOutWhatAModelHasLost) {
  const auto report = json_of_ablate_train({"analyse", cut_});
  EXPECT_TRUE(report.at("entropy")[1].at("attn").is_null());
  EXPECT_FALSE(report.at("entropy")[1].at("mlp").is_null());
  EXPECT_TRUE(report.at("spectrum").empty()) << "merged tokens are no grid";
}

TEST_F(Analyse, TransplantsBlocksOfAnotherRun) {
  const auto self = json_of_ablate_train({"analyse", dense_, "--transplant-from", dense_});
  const auto& same = self.at("transplant");
  EXPECT_EQ(same.at("metric"), "top1");
  EXPECT_EQ(same.at("blocks").size(), 3U);
  for (const auto& value : same.at("blocks")) EXPECT_EQ(value, same.at("own"));

  // One block from elsewhere, by hand.
  const auto report = json_of_ablate_train({"analyse", dense_, "--transplant-from", other_});
  const auto model = model_of(dense_), donor = model_of(other_);
  const at::NoGradGuard no_grad;
  const auto from = donor->named_parameters();
  for (auto& item : model->named_parameters()) {
    if (item.key().starts_with("blocks.2.")) item.value().copy_(from[item.key()]);
  }
  model->eval();
  ForwardState state;
  const at::Tensor predicted = model->forward(images_of(dense_), state).argmax(1);
  const RunSpec spec = test::resolve_small(kRun);
  Params params(spec.training, "run");
  TrainingOptions options = TrainingOptions::read(params);
  options.global_batch = 50;
  const RunData data(spec, options, {}, {.rank = 0, .size = 1});
  const auto loader = data.eval_loader(data.splits().test);
  loader->start();
  const at::Tensor right = (predicted == loader->next().labels).to(at::kDouble).mean();
  EXPECT_NEAR(report.at("transplant").at("blocks")[2].get<double>(), 100 * right.item<double>(),
              1e-9);
}

TEST_F(Analyse, RefusesBlocksOfAnotherShape) {
  std::string small = kRun;
  small.replace(small.find("embed_dim = 16"), 14, "embed_dim = 8 ");
  const RunSpec spec = test::resolve_small(small);
  test::run_small(spec, out_->path());
  const RunPaths paths(out_->path(), spec.id());
  std::ofstream(paths.spec()) << spec.canonical();
  const CapturedRun refused =
      run_ablate_train({"analyse", dense_, "--transplant-from", paths.directory.string()});
  EXPECT_EQ(refused.status.code, 2);
  EXPECT_NE(refused.errors.find("no blocks.0 of the same shape"), std::string::npos)
      << refused.errors;
}

}  // namespace
}  // namespace ablate
