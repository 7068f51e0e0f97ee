#include <gtest/gtest.h>

#include "datasets/loader.h"
#include "methods/models/fold.h"
#include "runner/train/evaluate.h"
#include "runner/train/finals.h"
#include "tests/support/datasets.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// Search, dilution and removal on a small network that has really learned.

namespace ablate {
namespace {

constexpr const char* kData =
    "train_size = 1024\ntest_size = 400\nclasses = 10\nimage_size = 16\nnoise = 40\ndistraction = "
    "0.7\n";
constexpr const char* kModel =
    "image_size = 16\nembed_dim = 48\ndepth = 6\nnum_heads = 3\nmlp_ratio = 2.0\n";

/// A run of so many epochs with one method, from a parent when there is one.
ResolvedRun resolve(int epochs, double lr, const std::string& method, const ResolvedRun* parent) {
  const std::string table =
      cat("epochs = ", epochs, "\nglobal_batch = 32\nseed = 5\nevaluate_every = 100\n[dataset]\n",
          "name = 'synthetic'\n", kData, "[model]\nname = 'vit'\n", kModel,
          "[optimizer]\nname = 'adamw'\nlr = ", lr, "\n", method);
  std::vector<DraftParent> parents;
  if (parent) parents.push_back({"init", parent});
  return resolve_run(parse_toml(table, "test"), parents, {}, 1);
}

double top1(const ResolvedRun& run, const std::filesystem::path& out) {
  return test::run_small(run.spec, out).finals.at("top1");
}

/// The model of a finished run read from its files and evaluated anew.
double top1_of_files(const ResolvedRun& run, const std::filesystem::path& out, bool fold) {
  const auto model =
      load_final_model(read_finals(RunPaths(out, run.spec.id()).final_directory()), false);
  if (fold) {
    EXPECT_EQ(fold_doublings(*model).scale, 8.0) << "three blocks double";
  }
  const auto data = test::open_dataset("synthetic", kData).test;
  const auto task = make_task(run.spec.task, data->facts());
  const auto batches = make_host_batches(std::make_unique<EvalLoader>(
      data, test::make_recipe("none", 16), LoaderOptions{.global_batch = 50}));
  const auto self = make_self_communicator();
  const auto forward = make_plain_forward(*model, at::kFloat, at::kCPU);
  return evaluate(*model, *forward, *task, *batches, data->size(), at::kCPU, *self)
      .metrics.front()
      .value;
}

TEST(DilutionLong, KeepsWhatRemovalAtOnceLoses) {
  const test::TempFolder folder;
  const auto& out = folder.path();
  const std::string nose = "[[methods]]\nname = 'nose'\nremove = 3\nsamples = 512\n";
  const ResolvedRun dense = resolve(14, 2e-3, "", nullptr);
  const ResolvedRun cut = resolve(0, 1e-3, nose, &dense);
  const ResolvedRun direct = resolve(4, 1e-3, nose + "direct = true\n", &dense);
  const ResolvedRun diluted = resolve(4, 1e-3, nose, &dense);

  const double learned = top1(dense, out), untuned = top1(cut, out), tuned = top1(direct, out),
               kept = top1(diluted, out);
  std::cout << "top-1: dense " << learned << ", cut " << untuned << ", cut and tuned " << tuned
            << ", diluted " << kept << "\n";
  EXPECT_GT(learned, 60.0) << "chance is 10";
  EXPECT_GT(kept, untuned + 3.0);
  // Both are tuned over equally many images; which of them ends higher is within the noise of a
  // single small run, so only a collapse fails here.
  EXPECT_GT(kept, tuned - 8.0);
  EXPECT_GT(kept, learned - 20.0);

  EXPECT_EQ(top1_of_files(diluted, out, false), kept);
  EXPECT_EQ(top1_of_files(diluted, out, true), kept) << "folding changes no bit";
}

}  // namespace
}  // namespace ablate
