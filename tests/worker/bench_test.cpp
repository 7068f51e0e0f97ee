#include <cmath>
#include <fstream>
#include <map>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "results/spool_reader.h"
#include "runner/worker/bench_subject.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using nlohmann::json;
using test::json_of_ablate_train;
using test::run_ablate_train;

Structure small_structure() {
  return {.model = {.name = "vit",
                    .semantics = 1,
                    .params = parse_toml("image_size = 8\nembed_dim = 16\ndepth = 3\nnum_heads = 2",
                                         "test")},
          .classes = 4,
          .bn_group = 8,
          .edits = {}};
}

Structure without_attention_of_block_1() {
  Structure structure = small_structure();
  structure.edits = {SetGains{1, 2.0, 0.0}, RemoveMixer{1}};
  return structure;
}

TEST(BenchSubject, TrainingHoldsTheModelItsGradientsAndBothMoments) {
  const Structure structure = small_structure();
  const auto model = test::make_model(
      "vit", "image_size = 8\nembed_dim = 16\ndepth = 3\nnum_heads = 2", structure.classes);
  const std::int64_t weights = 4 * test::parameter_count(*model);
  const std::int64_t infer = peak_bytes(structure, {.kind = BenchKind::Infer, .batch = 1});
  const std::int64_t train = peak_bytes(structure, {.kind = BenchKind::Train, .batch = 1});
  EXPECT_GE(infer, weights);
  EXPECT_LT(infer, 2 * weights);
  EXPECT_GE(train, 4 * weights);
  EXPECT_EQ(peak_bytes(structure, {.kind = BenchKind::Train, .batch = 1}), train)
      << "a property of the structure, not of the machine's state";
}

TEST(BenchSubject, TheLargestBatchFitsAndOneMoreDoesNot) {
  constexpr std::int64_t kBudget = 1 << 20;
  for (const BenchKind kind : {BenchKind::Infer, BenchKind::Train}) {
    const std::int64_t batch = max_batch(small_structure(), {.kind = kind}, kBudget);
    EXPECT_LE(peak_bytes(small_structure(), {.kind = kind, .batch = batch}), kBudget);
    EXPECT_GT(peak_bytes(small_structure(), {.kind = kind, .batch = batch + 1}), kBudget);
  }
}

// Lin et al., CVPR 2024: what the removal buys is room for activations, in training.
TEST(BenchSubject, RemovedAttentionRaisesTheWorkingLoadOfTraining) {
  constexpr std::int64_t kBudget = 1 << 20;
  const Protocol train{.kind = BenchKind::Train};
  EXPECT_GT(max_batch(without_attention_of_block_1(), train, kBudget),
            max_batch(small_structure(), train, kBudget));
}

TEST(BenchSubject, BatchNormTakesAnyBatch) {
  const Structure resnet{.model = {.name = "resnet20", .semantics = 1, .params = {}},
                         .classes = 4,
                         .bn_group = 4,
                         .edits = {}};
  for (const std::int64_t batch : {4, 6}) {
    BenchSubject subject(resnet, {.kind = BenchKind::Train, .batch = batch});
    EXPECT_NO_THROW(subject.repeat()) << batch;
  }
}

TEST(BenchSubject, TrainsBothHeadsOfDenseModels) {
  const Structure dense{
      .model = {.name = "upernet_vit",
                .semantics = 1,
                .params = parse_toml("image_size = 16\nembed_dim = 16\ndepth = 4\nnum_heads = 2\n"
                                     "channels = 8\npool_scales = [1, 2]\nauxiliary_channels = 8",
                                     "test")},
      .classes = 4,
      .bn_group = 4,
      .edits = {}};
  BenchSubject subject(dense, {.kind = BenchKind::Train, .batch = 4});
  std::map<std::string, at::Tensor> before;
  for (const auto& item : subject.model().named_parameters()) {
    before[item.key()] = item.value().detach().clone();
  }
  subject.repeat();
  for (const char* head : {"decode_head.conv_seg.weight", "auxiliary_head.conv_seg.weight"}) {
    EXPECT_FALSE(at::equal(subject.model().named_parameters()[head], before.at(head))) << head;
  }
}

std::string write_structure(const test::TempFolder& folder, const std::string& name,
                            const Structure& structure) {
  std::ofstream(folder / name) << structure.to_json();
  return (folder / name).string();
}

TEST(Bench, WritesARowForTheStructureAndOneForItsBaseline) {
  const test::TempFolder folder;
  const auto spool = folder / "attempt-0/rank0.spool";
  const json report = json_of_ablate_train(
      {"bench", "--structure", write_structure(folder, "a.json", without_attention_of_block_1()),
       "--against", write_structure(folder, "b.json", small_structure()), "--protocol", "train",
       "--batch", "4", "--budget-seconds", "0", "--memory-budget-mib", "1", "--run", "r",
       "--attempt", "-3", "--out-spool", spool.string()});
  EXPECT_EQ(report.at("record").at("rounds"), 5);
  ASSERT_EQ(report.at("rows").size(), 2U);
  const json &row = report.at("rows")[0], &baseline = report.at("rows")[1];
  EXPECT_EQ(row.at("protocol"), "train-fp32-b4");
  EXPECT_EQ(row.at("structure_hash"), without_attention_of_block_1().hash());
  EXPECT_EQ(row.at("baseline_hash"), small_structure().hash());
  EXPECT_GT(row.at("ratio").get<double>(), 0);
  EXPECT_FALSE(baseline.contains("ratio"));
  // qkv, proj, their biases and norm1: 4 C^2 + 6 C.
  EXPECT_EQ(baseline.at("params").get<int>() - row.at("params").get<int>(), 4 * 256 + 6 * 16);
  EXPECT_GT(row.at("max_batch"), baseline.at("max_batch"));
  EXPECT_EQ(row.at("resolution"), 8);

  SpoolReader reader(spool);
  std::vector<json> notes;
  std::string outcome;
  while (const auto frame = reader.next()) {
    if (const auto* header = std::get_if<SpoolHeader>(&frame->record)) {
      EXPECT_EQ(header->run_uid, "r");
      EXPECT_EQ(header->attempt, -3);
    }
    if (const auto* note = std::get_if<BenchNote>(&frame->record)) {
      notes.push_back(json::parse(note->json));
    }
    if (const auto* end = std::get_if<Outcome>(&frame->record)) outcome = name_of(end->state);
  }
  EXPECT_EQ(json(notes), report.at("rows"));
  EXPECT_EQ(outcome, "done");
}

TEST(Bench, SaysWhatItNeeds) {
  const CapturedRun nothing = run_ablate_train({"bench"});
  EXPECT_EQ(nothing.status.code, 2);
  EXPECT_NE(nothing.errors.find("--structure FILE"), std::string::npos) << nothing.errors;
  const test::TempFolder folder;
  std::ofstream(folder / "x.json") << "{}";
  const CapturedRun other =
      run_ablate_train({"bench", "--structure", (folder / "x.json").string()});
  EXPECT_EQ(other.status.code, 2);
  EXPECT_NE(other.errors.find("neither a structure.json nor"), std::string::npos) << other.errors;
}

TEST(Bench, MeasuresLoaderAndCommunication) {
  const test::TempFolder folder;
  std::ofstream(folder / "run.toml") << R"(
dataset = { name = "synthetic", train_size = 64, test_size = 4, image_size = 8, classes = 4 }
model = { name = "vit", image_size = 8, embed_dim = 16, depth = 1, num_heads = 2 }
epochs = 1
global_batch = 32
)";
  const json loader = json_of_ablate_train(
      {"bench", "loader", (folder / "run.toml").string(), "--seconds", "0.01"});
  EXPECT_EQ(loader.at("dataset"), "synthetic");
  EXPECT_EQ(loader.at("made_on"), "host");
  EXPECT_GT(loader.at("images_per_s").get<double>(), 0);
  const json comm = json_of_ablate_train({"bench", "comm", "--max-mib", "1", "--seconds", "0.001"});
  EXPECT_EQ(comm.at("backend"), "self");
  EXPECT_EQ(comm.at("sizes").size(), 6U);
  EXPECT_EQ(comm.at("sizes").back().at("bytes"), 1 << 20);
  EXPECT_EQ(comm.at("sizes").back().at("busbw_gb_per_s"), 0) << "one rank sends nothing";
}

/// A run file whose images are cropped.
void write_cropped_run(const std::filesystem::path& file, const std::string& precision) {
  std::ofstream(file) << R"(
dataset = { name = "synthetic", train_size = 64, test_size = 4, image_size = 24, classes = 4 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 64, depth = 2, num_heads = 2 }
augmentation = { name = "deit", repeated = 1 }
mix_group = 8
epochs = 1
global_batch = 16
precision = ")" << precision
                      << "\"\n";
}

void expect_way(const json& way, int rounds) {
  EXPECT_EQ(way.at("images_per_s").size(), static_cast<std::size_t>(rounds));
  for (const json& rate : way.at("images_per_s")) EXPECT_GT(rate.get<double>(), 0);
  EXPECT_GT(way.at("ratio_to_ready").get<double>(), 0);
  EXPECT_GE(way.at("waited").get<double>(), 0);
  EXPECT_LT(way.at("waited").get<double>(), 1);
  EXPECT_FALSE(way.at("slow_stage").get<std::string>().empty());
}

/// What a loader adds: shares of its stages, and how many cores the speed of images that lie ready
/// would take: those that load, and the one that takes.
void expect_loading_way(const json& way, const json& ready, int rounds) {
  expect_way(way, rounds);
  double sum = 0;
  for (const auto& [stage, share] : way.at("stages").items()) sum += share.get<double>();
  EXPECT_NEAR(sum, 1, 1e-9);
  ASSERT_EQ(rounds, 1) << "the median of one is it";
  const double loading =
      ready.at("images_per_s")[0].get<double>() / way.at("images_per_s_a_thread").get<double>();
  EXPECT_DOUBLE_EQ(way.at("cores_for_ready_speed").get<double>(), std::ceil(loading) + 1);
}

TEST(Bench, MeasuresTrainingFedByItsLoader) {
  const test::TempFolder folder;
  write_cropped_run(folder / "run.toml", "fp32");
  const json report =
      json_of_ablate_train({"bench", "input", (folder / "run.toml").string(), "--seconds", "0.02",
                            "--rounds", "1", "--loader-threads", "1"});
  EXPECT_EQ(report.at("samples"), 64);
  EXPECT_EQ(report.at("loader_threads"), 1);
  EXPECT_EQ(report.at("record").at("protocol"), "train-fp32-b16");
  const json& ways = report.at("ways");
  EXPECT_EQ(ways.size(), 2U);
  EXPECT_EQ(ways.at("ready").at("ratio_to_ready"), 1);
  expect_way(ways.at("ready"), 1);
  expect_loading_way(ways.at("whole"), ways.at("ready"), 1);

  write_cropped_run(folder / "half.toml", "bf16");
  const CapturedRun half = run_ablate_train({"bench", "input", (folder / "half.toml").string()});
  EXPECT_EQ(half.status.code, 2);
  EXPECT_NE(half.errors.find("--device cuda"), std::string::npos) << half.errors;
}

#if ABLATE_HAS_CUDA

TEST(BenchGpu, FeedsTrainingInEveryWay) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  const test::TempFolder folder;
  write_cropped_run(folder / "run.toml", "bf16");
  const json report =
      json_of_ablate_train({"bench", "input", (folder / "run.toml").string(), "--seconds", "0.1",
                            "--rounds", "1", "--device", "cuda", "--loader-threads", "2"});
  const json& ways = report.at("ways");
  EXPECT_EQ(ways.size(), 4U);
  expect_way(ways.at("ready"), 1);
  expect_way(ways.at("decoded"), 1);
  for (const char* way : {"crops", "whole"}) {
    expect_loading_way(ways.at(way), ways.at("ready"), 1);
  }
  EXPECT_GT(report.at("device_finishes_images_per_s").get<double>(), 0);
}

TEST(BenchGpu, MakesBatchesWhereTheyCanBeMade) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  const test::TempFolder folder;
  const auto made_on = [&](int image_size) {
    std::ofstream(folder / "run.toml")
        << "dataset = { name = \"synthetic\", train_size = 64, test_size = 4, classes = 4, "
        << "image_size = " << image_size << " }\nmodel = { name = \"vit\", patch_size = 4, "
        << "image_size = " << image_size << ", embed_dim = 16, depth = 1, num_heads = 2 }\n"
        << "epochs = 1\nglobal_batch = 32\naugmentation = \"cifar\"\n";
    const json loader = json_of_ablate_train({"bench", "loader", (folder / "run.toml").string(),
                                              "--device", "cuda", "--seconds", "0.01"});
    EXPECT_GT(loader.at("images_per_s").get<double>(), 0);
    return loader.at("made_on").get<std::string>();
  };
  EXPECT_EQ(made_on(16), "device");
  EXPECT_EQ(made_on(72), "host: its images of 72 pixels are larger than 64");
}

#endif

}  // namespace
}  // namespace ablate
