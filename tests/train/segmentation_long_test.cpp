#include <gtest/gtest.h>

#include "tests/support/datasets.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

namespace ablate::test {
namespace {

constexpr std::string_view kShapes = R"(
epochs = 12
global_batch = 16
bn_group = 16
seed = 1
evaluate_every = 100
[dataset]
name = "synthetic_segmentation"
train_size = 512
test_size = 64
classes = 5
image_size = 32
[augmentation]
name = "segmentation"
ratio = [1.0, 1.0]
photometric = false
[model]
name = "upernet_resnet20"
image_size = 32
channels = 16
pool_scales = [1, 2]
auxiliary_channels = 8
[optimizer]
name = "adamw"
lr = 4e-3
)";

// A small network of convolutions learns the generated shapes to the pixel, borders included.
TEST(SegmentationLong, GeneratedShapesAreLearnt) {
  const TempFolder out;
  const RunRecord record = run_small(resolve_table(kShapes), out.path());
  EXPECT_GT(record.finals.at("miou"), 90.0);
  EXPECT_GT(record.finals.at("aacc"), record.finals.at("miou"));
}

constexpr std::string_view kScenes = R"(
epochs = 12
global_batch = 3
seed = 1
evaluate_every = 100
[dataset]
name = "ade20k"
[augmentation]
name = "segmentation"
ratio = [1.0, 1.0]
[model]
name = "linear_vit"
image_size = 64
patch_size = 8
embed_dim = 48
depth = 2
num_heads = 2
[optimizer]
name = "adamw"
lr = 3e-3
)";

// The real samples, which are few and the same in both parts: training on them is seen in the loss
// and in pixels found, on one rank as on two.
TEST(SegmentationLong, ScenesGoThroughTrainingAndEvaluation) {
  const auto root = shared_folder() / "data/ade20k-sample/ADEChallengeData2016";
  if (!std::filesystem::exists(root)) GTEST_SKIP() << root << " is not there";
  const RunSpec spec = resolve_run(run_table(kScenes), {}, {{"ade20k", root}}, 1).spec;
  std::vector<RunRecord> records;
  for (const int ranks : {1, 3}) {
    const TempFolder out;
    Environment environment = environment_in(out.path());
    environment.data = {{"ade20k", root}};
    const Outcome outcome = run_attempt(spec, environment, ranks);
    ASSERT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
    records.push_back(read_run(spec, environment));
  }
  const auto& loss = records[0].series.at("train/loss");
  EXPECT_LT(loss.at(11), 0.8 * loss.at(0));
  EXPECT_GT(records[0].finals.at("aacc"), 20.0) << "1/150 by chance";
  for (const auto& [step, value] : loss) {
    EXPECT_NEAR(records[1].series.at("train/loss").at(step), value, 1e-3 * value) << step;
  }
}

}  // namespace
}  // namespace ablate::test
