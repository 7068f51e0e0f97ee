#include <set>

#include <gtest/gtest.h>

#include "runner/train/run_data.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Runs whose images have a label for each pixel.

namespace ablate::test {
namespace {

/// A linear head on a small transformer; an epoch is four steps of 16 images.
constexpr std::string_view kTinyDense = R"(
epochs = 2
global_batch = 16
evaluate_every = 100
seed = 5
[dataset]
name = "synthetic_segmentation"
train_size = 64
test_size = 21
classes = 4
image_size = 16
ragged = true
[model]
name = "linear_vit"
image_size = 16
patch_size = 4
embed_dim = 16
depth = 2
num_heads = 2
mlp_ratio = 2.0
[optimizer]
name = "adamw"
lr = 2e-3
)";

nlohmann::json evaluated_event(const RunSpec& spec, const std::filesystem::path& out) {
  for (const Event& event : records_of<Event>(RunPaths(out, spec.id()).spool(1, 0))) {
    if (event.kind == "evaluated") return nlohmann::json::parse(event.body);
  }
  return {};
}

TEST(SegmentationRun, TakesItsTaskAndAugmentationFromTheData) {
  const RunSpec spec = resolve_table(kTinyDense, {});
  EXPECT_EQ(spec.task.name, "segmentation");
  EXPECT_EQ(spec.augmentation.name, "segmentation");
}

TEST(SegmentationRun, PartsForImagesWithALabelEachAreRefused) {
  for (const char* part : {"task=classification", "augmentation=cifar", "model.name=vit"}) {
    const std::string message = message_of<SpecError>([&] { resolve_table(kTinyDense, {part}); });
    EXPECT_NE(message.find("a label an image"), std::string::npos) << message;
    EXPECT_NE(message.find("synthetic_segmentation"), std::string::npos) << message;
  }
  EXPECT_NE(message_of<SpecError>([] {
              resolve_table(kTinyVit, {"task=segmentation"});
            }).find("a label for each pixel"),
            std::string::npos);
}

TEST(SegmentationRun, ABackboneWithADistillationTokenHasNoHeadToTeach) {
  EXPECT_NO_THROW(resolve_table(kTinyDense, {"model.distilled=true"}));
}

TEST(SegmentationRun, IsTheSameOnAnyNumberOfRanks) {
  const RunSpec spec = resolve_table(kTinyDense, {"precision=fp64"});
  const TempFolder one, two, four;
  const RunRecord alone = run_small(spec, one.path());
  for (const auto& [folder, ranks, micro] : {std::tuple{&two, 2, 4}, std::tuple{&four, 4, 0}}) {
    const RunRecord shared = run_small(spec, folder->path(), ranks, micro);
    for (const auto& [step, loss] : alone.series.at("train/loss")) {
      EXPECT_NEAR(shared.series.at("train/loss").at(step), loss, 1e-10) << ranks << ", " << step;
    }
    for (const char* metric : {"miou", "macc", "aacc"}) {
      EXPECT_EQ(shared.finals.at(metric), alone.finals.at(metric)) << ranks << ", " << metric;
    }
    EXPECT_EQ(evaluated_event(spec, folder->path()), evaluated_event(spec, one.path()));
  }
}

TEST(SegmentationRun, KeepsTheNumbersOfEveryClass) {
  const RunSpec spec = resolve_table(kTinyDense, {});
  const TempFolder out;
  const RunRecord record = run_small(spec, out.path());
  const nlohmann::json details = evaluated_event(spec, out.path());
  ASSERT_EQ(details.at("iou").size(), 4U);
  double sum = 0, pixels = 0;
  int known = 0;
  for (std::size_t k = 0; k < 4; ++k) {
    pixels += details.at("pixels")[k].get<double>();
    if (details.at("iou")[k].is_null()) continue;
    sum += details.at("iou")[k].get<double>();
    ++known;
  }
  EXPECT_NEAR(record.finals.at("miou"), sum / known, 1e-9);
  double area = 0;
  const DatasetSplits splits = open_dataset(
      "synthetic_segmentation",
      "train_size = 64\ntest_size = 21\nclasses = 4\nimage_size = 16\nragged = true\n");
  for (std::int64_t i = 0; i < 21; ++i) {
    LabelMap labels;
    splits.test->load_labels(i, labels);
    area += static_cast<double>(labels.classes.size());
  }
  EXPECT_EQ(pixels, area) << "every pixel of the test part, at its original size";
  EXPECT_TRUE(record.series.contains("eval/miou"));
  EXPECT_TRUE(records_of<SampleBits>(RunPaths(out.path(), spec.id()).spool(1, 0)).empty());
}

TEST(SegmentationRun, GoesOnAsIfNothingHadHappened) {
  const RunSpec spec = resolve_table(kTinyDense, {"dataset.holdout=16", "epochs=1"});
  const TempFolder whole, pieces;
  const RunRecord at_once = run_small(spec, whole.path(), 2);
  Environment environment = environment_in(pieces.path());
  for (environment.attempt = 1;; ++environment.attempt) {
    if (run_attempt(spec, environment, 2, true).state == OutcomeState::Done) break;
  }
  EXPECT_EQ(environment.attempt, 3) << "a step each";
  const RunRecord resumed = read_run(spec, environment, environment.attempt);
  EXPECT_EQ(resumed.finals, at_once.finals);
  for (const auto& [name, weights] : at_once.weights) {
    EXPECT_TRUE(at::equal(resumed.weights.at(name), weights)) << name;
  }
}

// Windows and mirrored copies at several sizes give other numbers of the same weights.
TEST(SegmentationRun, EvaluatesAsTheSpecSays) {
  std::set<double> values;
  for (const char* how :
       {"task.flip=false", "task.flip=true", "task.ratios=[1.0, 2.0]", "task.inference=slide"}) {
    const TempFolder out;
    const RunSpec spec =
        resolve_table(kTinyDense, {how, "task.crop=16", "task.stride=12", "epochs=3"});
    values.insert(run_small(spec, out.path()).finals.at("aacc"));
  }
  EXPECT_GT(values.size(), 1U);
}

}  // namespace
}  // namespace ablate::test
