#include <algorithm>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "runner/core/text.h"
#include "tests/end_to_end/workbench.h"
#include "tests/support/table_files.h"

// The sweep files of sweeps/tables, as a user starts them.

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::TempFolder;
using test::Workbench;

constexpr std::size_t kCifarRecord = 2 + 3 * 32 * 32;  // coarse label, fine label, planes

void make_file(const fs::path& file, std::size_t bytes) {
  std::ofstream(file).flush();
  fs::resize_file(file, bytes);
}

/// What the files need to be planned: CIFAR-100 of its size, all zero; a few folders of empty files
/// for ImageNet and ADE20K; and files that are called like published weights.
struct Materials {
  TempFolder folder;
  Workbench bench{folder.path()};

  Materials() {
    fs::create_directories(folder / "cifar");
    make_file(folder / "cifar/train.bin", 50'000 * kCifarRecord);
    make_file(folder / "cifar/test.bin", 10'000 * kCifarRecord);
    for (int label = 0; label < 8; ++label) {
      make_images(folder / cat("imagenet/train/", label), 300);
      make_images(folder / cat("imagenet/val/", label), 2);
    }
    for (const char* part : {"training", "validation"}) {
      make_images(folder / cat("ade/images/", part), 32);
      make_images(folder / cat("ade/annotations/", part), 32, ".png");
    }
    fs::create_directories(folder / "weights");
    for (const char* model :
         {"deit_tiny", "deit_small", "deit_base", "deit_tiny_distilled", "deit_small_distilled"}) {
      std::ofstream(folder / cat("weights/", model, "_patch16_224.safetensors")) << model;
    }
    std::ofstream(folder / "weights/resnet101.safetensors") << "resnet101";
  }

  CapturedRun plan(const fs::path& file) const {
    return bench.ablate({"sweep", file.string(), "--dry-run", "--seeds", "1", "--data",
                         "cifar100=cifar", "--data", "imagefolder=imagenet", "--data",
                         "ade20k=ade"});
  }

 private:
  static void make_images(const fs::path& directory, int count, const char* ending = ".jpg") {
    fs::create_directories(directory);
    for (int i = 0; i < count; ++i) std::ofstream(directory / cat(i, ending)).flush();
  }
};

void expect_a_plan(const fs::path& file) {
  static const Materials materials;
  const CapturedRun plan = materials.plan(file);
  EXPECT_EQ(plan.status.code, 0) << plan.errors;
  EXPECT_EQ(plan.errors, "");
  EXPECT_TRUE(contains(plan.output, "time:")) << plan.output;
  EXPECT_FALSE(contains(plan.output, " 0 to do")) << plan.output;
}

bool is_at_paper_scale(const fs::path& file) {
  const std::string name = file.stem().string();
  return name.ends_with("_imagenet") || name.ends_with("_ade20k");
}

std::vector<fs::path> files_at_paper_scale(bool wanted) {
  std::vector<fs::path> files = test::table_files();
  std::erase_if(files, [&](const fs::path& file) { return is_at_paper_scale(file) != wanted; });
  return files;
}

class TablePlan : public ::testing::TestWithParam<fs::path> {};
TEST_P(TablePlan, IsMade) { expect_a_plan(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Tables, TablePlan, ::testing::ValuesIn(files_at_paper_scale(false)),
                         [](const auto& of) { return test::name_of_table(of.param); });

// Each counts multiply-accumulates of networks for images of 224 and more.
class TablePlanLong : public ::testing::TestWithParam<fs::path> {};
TEST_P(TablePlanLong, IsMade) { expect_a_plan(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Tables, TablePlanLong, ::testing::ValuesIn(files_at_paper_scale(true)),
                         [](const auto& of) { return test::name_of_table(of.param); });

/// `count` images of noise in the binary version of CIFAR-100.
void write_noise(const fs::path& file, int count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::string bytes;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count) * kCifarRecord; ++i) {
    const bool label = i % kCifarRecord < 2;
    bytes.push_back(static_cast<char>(random() % (label ? 20 : 256)));
  }
  std::ofstream(file) << bytes;
}

const std::vector<std::string> kSmallVit = {"model.name=vit",      "model.image_size=224",
                                            "model.patch_size=32", "model.embed_dim=24",
                                            "model.depth=8",       "model.num_heads=2"};

/// Weights for 1000 classes at 224 px as somebody else may have trained them: drawn at random.
void write_weights(const Workbench& bench, const std::string& file) {
  const std::string sweep = bench.write("weights.toml", R"(name = "weights"
[run]
dataset = { name = "synthetic", train_size = 32, test_size = 32, classes = 1000, image_size = 224 }
model = { name = "vit" }
epochs = 0
global_batch = 32
[[variant]]
label = "random"
[seeds]
count = 1
)");
  std::vector<std::string> arguments = {"sweep", sweep};
  arguments.insert(arguments.end(), kSmallVit.begin(), kSmallVit.end());
  const CapturedRun drawn = bench.ablate(arguments);
  ASSERT_EQ(drawn.status.code, 0) << drawn.errors;
  ASSERT_EQ(bench.ablate({"export", "random seed 0", "--to", "exported"}).status.code, 0);
  fs::create_directories((bench / file).parent_path());
  fs::copy_file(bench / "exported/model.safetensors", bench / file);
}

int parameters_of(const Workbench& bench, const std::string& sweep, const std::string& label) {
  return std::stoi(bench.query(
      "SELECT CAST(value AS INTEGER) FROM final JOIN metric m USING(metric_id) JOIN run "
      "USING(run_id) JOIN sweep_variant USING(variant_id) JOIN sweep s USING(sweep_id) WHERE "
      "m.name = 'params' AND s.name = '" +
      sweep + "' AND label = '" + label + "'"));
}

// The file for DeiT-T, on a transformer small enough to train here: another head, attention that
// goes while it is tuned and afterwards, merged tokens.
TEST(Tables, TransferFromGivenWeightsAt224RunsToItsTable) {
  const TempFolder folder;
  const Workbench bench(folder.path());
  write_weights(bench, "weights/deit_tiny_patch16_224.safetensors");
  fs::create_directories(bench / "cifar");
  write_noise(bench / "cifar/train.bin", 16);
  write_noise(bench / "cifar/test.bin", 16);
  std::vector<std::string> arguments = {
      "sweep",
      (test::source_root() / "sweeps/tables/nose_transfer_cifar100.toml").string(),
      "--seeds",
      "1",
      "--data",
      "cifar100=cifar",
      "epochs=40",
      "global_batch=16",
      "mix_group=4",
      "precision=fp32",
      "evaluate_every=40",
      "launch.device=cpu"};
  arguments.insert(arguments.end(), kSmallVit.begin(), kSmallVit.end());
  const CapturedRun sweep = bench.ablate(arguments);
  ASSERT_EQ(sweep.status.code, 0) << sweep.errors;
  EXPECT_EQ(bench.query("SELECT count(*) FROM run JOIN sweep_run USING(run_id) JOIN sweep "
                        "USING(sweep_id) WHERE name = 'nose_transfer_cifar100' AND state = 'done'"),
            "6\n");
  // Of the classifier's rows of 24 weights and a bias, 100 are left of 1000.
  EXPECT_EQ(parameters_of(bench, "weights", "random") -
                parameters_of(bench, "nose_transfer_cifar100", "dense"),
            900 * (24 + 1));
  for (const char* row : {"dense", "published layers, while tuning", "NOSE 4/12, after tuning",
                          "ToMe r=13, evaluated", "NOSE 4/12, then ToMe r=13"}) {
    EXPECT_TRUE(contains(sweep.output, row)) << sweep.output;
  }
}

}  // namespace
}  // namespace ablate
