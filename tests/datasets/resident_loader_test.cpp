#include "datasets/device/resident_loader.h"

#include <iostream>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/datasets/device_batches.h"
#include "tests/support/gpu.h"

namespace ablate {
namespace {

using test::Apart;
using test::GuardedBatch;
using test::make_recipe;
using test::message_of;
using test::step_tensor;
using test::Varied;

/// A set and a recipe.
struct ResidentCase {
  std::string name;
  int stored;  ///< side of the set's images
  int side;    ///< of the network's input
  std::string preset, settings;

  AugmentRecipe recipe() const { return make_recipe(preset, side, settings); }
};

std::vector<ResidentCase> resident_cases() {
  const std::string alone = "mixup = 0.0\ncutmix = 0.0\nerasing = 0.0\n";
  return {
      {"none", 32, 32, "none", ""},
      {"central", 32, 27, "none", "eval_resize = 32"},
      {"cifar", 32, 32, "cifar", ""},
      {"odd", 28, 28, "cifar_strong", "pad = 3"},
      {"window", 32, 24, "cifar", "pad = 0"},
      {"small", 8, 8, "cifar_strong", "pad = 2"},
      {"smaller", 16, 15, "cifar_strong", "pad = 1\nrepeated = 3"},
      {"strong", 32, 32, "cifar_strong", ""},
      {"large", 64, 64, "cifar_strong", "repeated = 2"},
      {"larger", 32, 40, "cifar_strong", "pad = 4"},
      {"policy", 32, 32, "cifar_strong", "randaugment = \"rand-m7-mstd2-n5-p0.9\"\n" + alone},
      {"one", 32, 32, "cifar_strong", "randaugment = \"rand-m9-mstd0.5-inc1-n1-p1\"\n" + alone},
      {"wild", 28, 28, "none", "eval_resize = 28\nrandaugment = \"rand-m5-mstd9-n1-p1\""},
      {"noise", 32, 32, "none", "erasing = 1.0"},
      {"black", 32, 32, "none", "erasing = 0.7\nerasing_mode = \"const\""},
      {"colour", 31, 31, "none", "erasing = 1.0\nerasing_mode = \"rand\""},
      {"mixup", 32, 32, "none", "mixup = 0.3"},
      {"cutmix", 32, 32, "none", "cutmix = 1.0\nmix_prob = 0.8"},
      {"both", 20, 20, "none", "mixup = 1.5\ncutmix = 0.2\nswitch_prob = 0.7"},
  };
}

/// How a global batch is cut.
struct Slices {
  int ranks = 1;
  std::int64_t micro_batch = 0;
};

/// Loaders of both kinds for one rank.
struct BothLoaders {
  BothLoaders(const ResidentCase& what, at::Device where, const Slices& slices = {}, int rank = 0,
              std::int64_t samples = 200)
      : dataset(std::make_shared<Varied>(samples, what.stored)),
        options{.seed = 7,
                .global_batch = 96,
                .micro_batch = slices.micro_batch,
                .mix_group = 8,
                .shard = {rank, slices.ranks},
                .threads = 0},
        host(dataset, what.recipe(), options),
        resident(std::make_shared<ResidentSet>(*dataset, where), what.recipe(), options),
        target(resident.make_buffers()),
        device(where) {}

  void expect_same_labels(const Batch& expected, const std::string& label) const {
    EXPECT_TRUE(at::equal(target.batch.labels.cpu(), expected.labels)) << label;
    ASSERT_EQ(target.batch.mix.defined(), expected.mix.defined()) << label;
    if (!expected.mix.defined()) return;
    EXPECT_TRUE(at::equal(target.batch.other_labels.cpu(), expected.other_labels)) << label;
    EXPECT_TRUE(at::allclose(target.batch.mix.cpu(), expected.mix, 1e-6, 1e-7)) << label;
  }

  /// Checks all micro-batches of a step.
  Apart check(std::int64_t step) {
    const at::Tensor number = step_tensor(step, device);
    host.seek(step / host.steps_per_epoch(), step % host.steps_per_epoch());
    std::vector<at::Tensor> images, expected;
    for (std::int64_t i = 0; i < host.micro_batches_per_step(); ++i) {
      const std::string label = cat("step ", step, ", micro-batch ", i);
      const Batch truth = host.next();
      resident.enqueue(target.batch, i, number.const_data_ptr<std::int64_t>());
      expect_same_labels(truth, label);
      images.push_back(target.batch.images.cpu().clone());
      expected.push_back(truth.images);
    }
    EXPECT_TRUE(target.guards_intact());
    return {at::cat(images), at::cat(expected), dataset->facts().normalization};
  }

  std::shared_ptr<const Varied> dataset;
  LoaderOptions options;
  TrainLoader host;
  ResidentLoader resident;
  GuardedBatch target;
  at::Device device;
};

void expect_within_a_level(const Apart& apart, const std::string& label) {
  EXPECT_LE(apart.level, 1.01) << label;
  EXPECT_LE(apart.share, 1e-4) << label;
}

/// Steps of the first and of later epochs, two to an epoch.
void expect_batches_of_host(const ResidentCase& what, at::Device device) {
  BothLoaders loaders(what, device);
  ASSERT_EQ(loaders.resident.steps_per_epoch(), loaders.host.steps_per_epoch());
  double level = 0, share = 0;
  for (const std::int64_t step : {0, 1, 2, 5, 1001}) {
    const Apart apart = loaders.check(step);
    expect_within_a_level(apart, cat(what.name, ", step ", step));
    level = std::max(level, apart.level);
    share = std::max(share, apart.share);
  }
  std::cout << what.name << ": at most " << level << " levels apart, " << 100 * share
            << " % of values differ\n";
}

/// Every cut of the global batch, and resumption at any step.
void expect_slices_of_host(at::Device device) {
  for (const Slices slices : {Slices{1, 32}, Slices{2, 0}, Slices{2, 24}, Slices{4, 8}}) {
    for (int rank = 0; rank < slices.ranks; ++rank) {
      BothLoaders loaders({"slices", 16, 16, "cifar_strong", "pad = 2\nrepeated = 3"}, device,
                          slices, rank);
      for (const std::int64_t step : {3, 0}) {
        expect_within_a_level(loaders.check(step), cat("rank ", rank, " of ", slices.ranks,
                                                       ", micro-batch ", slices.micro_batch));
      }
    }
  }
}

/// The operation that a sample of a policy of one always applied layer undergoes.
std::map<AugmentOp, std::vector<std::int64_t>> rows_by_op(const BothLoaders& loaders,
                                                          const Batch& batch,
                                                          const AugmentRecipe& recipe,
                                                          std::int64_t epoch) {
  std::map<AugmentOp, std::vector<std::int64_t>> rows;
  for (std::size_t row = 0; row < batch.indices.size(); ++row) {
    const AugmentKey key{loaders.options.seed,
                         sample_key(static_cast<std::uint64_t>(epoch),
                                    static_cast<std::uint64_t>(batch.indices[row]))};
    RandomStream random = key.stream(AugmentStage::RandAugment);
    rows[draw_randaugment(*recipe.randaugment, random).front().op].push_back(
        static_cast<std::int64_t>(row));
  }
  return rows;
}

/// Each operation of RandAugment by itself, hundreds of times at all levels.
void expect_operations_of_host(at::Device device, std::string_view policy) {
  const ResidentCase what{"operations", 32, 32, "none", cat("randaugment = \"", policy, "\"")};
  BothLoaders loaders(what, device, {}, 0, 960);
  std::map<AugmentOp, std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> images;
  const std::int64_t steps = loaders.host.steps_per_epoch();
  loaders.host.seek(0, 0);
  for (std::int64_t step = 0; step < 4 * steps; ++step) {
    const Batch truth = loaders.host.next();
    const at::Tensor number = step_tensor(step, device);
    loaders.resident.enqueue(loaders.target.batch, 0, number.const_data_ptr<std::int64_t>());
    const at::Tensor made = loaders.target.batch.images.cpu();
    for (const auto& [op, rows] : rows_by_op(loaders, truth, what.recipe(), step / steps)) {
      images[op].first.push_back(made.index_select(0, at::tensor(rows)));
      images[op].second.push_back(truth.images.index_select(0, at::tensor(rows)));
    }
  }
  ASSERT_EQ(images.size(), static_cast<std::size_t>(kAugmentOps));
  for (const auto& [op, pair] : images) {
    const Apart apart(at::cat(pair.first), at::cat(pair.second),
                      loaders.dataset->facts().normalization);
    const std::string label = cat(policy, ", operation ", static_cast<int>(op));
    std::cout << label << ": at most " << apart.level << " levels apart, " << 100 * apart.share
              << " % of values differ\n";
    expect_within_a_level(apart, label);
  }
}

void expect_evaluation_of_host(at::Device device) {
  for (const ResidentCase& what : {ResidentCase{"whole", 32, 32, "cifar_strong", ""},
                                   ResidentCase{"central", 28, 25, "cifar", "eval_resize = 28"}}) {
    const auto dataset = std::make_shared<Varied>(50, what.stored);
    const auto set = std::make_shared<ResidentSet>(*dataset, device);
    ASSERT_EQ(ResidentEvalLoader::why_not(*dataset, what.recipe()), "");
    for (int rank = 0; rank < 3; ++rank) {
      const LoaderOptions options{.global_batch = 21, .shard = {rank, 3}, .threads = 0};
      EvalLoader host(dataset, what.recipe(), options);
      ResidentEvalLoader resident(set, what.recipe(), options);
      GuardedBatch target(resident.make_buffers());
      for (const std::int64_t limit : {0, 22, 100}) {
        host.start(limit);
        resident.start(limit);
        ASSERT_EQ(resident.batches(), host.batches());
        for (std::int64_t i = 0; i < host.batches(); ++i) {
          const Batch truth = host.next();
          resident.enqueue(target.batch, i);
          EXPECT_TRUE(at::equal(target.batch.images.cpu(), truth.images));
          EXPECT_TRUE(at::equal(target.batch.labels.cpu(), truth.labels));
          EXPECT_TRUE(at::equal(target.batch.weights.cpu(), truth.weights));
          EXPECT_EQ(target.batch.indices, truth.indices);
          EXPECT_EQ(target.batch.first_position, truth.first_position);
        }
      }
      EXPECT_TRUE(target.guards_intact());
    }
  }
}

class ResidentLoaderCases : public testing::TestWithParam<ResidentCase> {};

// The code that kernels run, on the host: the whole of it but for its threads.
TEST_P(ResidentLoaderCases, MakesTheBatchesOfTheHostLoader) {
  expect_batches_of_host(GetParam(), at::kCPU);
}

INSTANTIATE_TEST_SUITE_P(ResidentLoader, ResidentLoaderCases, testing::ValuesIn(resident_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(ResidentLoader, GivesEachRankItsSlice) { expect_slices_of_host(at::kCPU); }

TEST(ResidentLoader, DoesEachOperationAsTheHostDoes) {
  expect_operations_of_host(at::kCPU, "rand-m9-mstd0.5-inc1-n1-p1");
  expect_operations_of_host(at::kCPU, "rand-m5-mstd5-n1-p1");
}

TEST(ResidentLoader, EvaluatesAsTheHostDoes) { expect_evaluation_of_host(at::kCPU); }

TEST(ResidentLoader, SaysWhyASetGoesAnotherWay) {
  const Varied small(100, 32), large(100, 65), many(std::int64_t{1} << 20, 64);
  const AugmentRecipe cifar = make_recipe("cifar", 32);
  EXPECT_EQ(ResidentLoader::why_not(small, cifar), "");
  EXPECT_EQ(ResidentLoader::why_not(large, cifar), "its images of 65 pixels are larger than 64");
  EXPECT_EQ(ResidentLoader::why_not(many, make_recipe("cifar", 64)),
            "its 1048576 images take more than 2048 MiB");
  EXPECT_EQ(ResidentLoader::why_not(small, make_recipe("deit", 32)),
            "crop = \"resized\" resamples images");
  EXPECT_EQ(ResidentLoader::why_not(small, make_recipe("none", 24)),
            "images of 32 pixels are resized to 24");
  EXPECT_EQ(ResidentLoader::why_not(small, make_recipe("cifar", 48)),
            "image_size = 48 does not fit into padded images");
  EXPECT_EQ(ResidentLoader::why_not(small, make_recipe("cifar", 72, "pad = 20")),
            "image_size = 72 is larger than 64");
  EXPECT_EQ(ResidentEvalLoader::why_not(small, make_recipe("deit", 28, "eval_resize = 32")), "");
  EXPECT_EQ(ResidentEvalLoader::why_not(small, make_recipe("deit", 28)), "");
  EXPECT_EQ(ResidentEvalLoader::why_not(small, make_recipe("deit", 32)),
            "images of 32 pixels are resized to 36");
}

TEST(ResidentLoader, RefusesWhatTheHostLoaderRefuses) {
  const Varied dataset(100, 16);
  const auto set = std::make_shared<ResidentSet>(dataset, at::kCPU);
  const AugmentRecipe recipe = make_recipe("cifar_strong", 16);
  const auto make = [&](const LoaderOptions& options) {
    return message_of<SpecError>([&] { ResidentLoader(set, recipe, options); });
  };
  EXPECT_NE(make({.global_batch = 33, .shard = {0, 2}}).find("does not divide"), std::string::npos);
  EXPECT_NE(make({.global_batch = 60}).find("mix_group = 32"), std::string::npos);
  EXPECT_NE(make({.global_batch = 128}).find("more than the training set"), std::string::npos);
}

TEST(ResidentSets, RunsShareOneCopyAsLongAsOneHoldsIt) {
  ResidentSets sets;
  const Varied dataset(20, 16), same(20, 16), other(21, 16);
  auto first = sets.get(dataset, at::kCPU);
  EXPECT_EQ(sets.get(same, at::kCPU), first);
  EXPECT_NE(sets.get(other, at::kCPU), first);
  EXPECT_EQ(first->size(), 20);
  const std::weak_ptr<const ResidentSet> seen = first;
  first.reset();
  EXPECT_TRUE(seen.expired());
  EXPECT_EQ(sets.get(dataset, at::kCPU)->size(), 20);
}

TEST(ResidentSets, HoldsTheImagesAsTheyAre) {
  const Varied dataset(600, 10);
  const ResidentSet set(dataset, at::kCPU);
  const augment::ImageSet images = set.images();
  for (std::int64_t i = 0; i < set.size(); ++i) {
    const Image image = test::load_image(dataset, i);
    EXPECT_TRUE(std::ranges::equal(image.pixels, std::span(images.pixels + i * 300, 300)));
    EXPECT_EQ(images.labels[i], dataset.label(i));
  }
}

#if ABLATE_HAS_CUDA

const at::Device kResidentDevice(at::kCUDA, 0);

class ResidentLoaderCasesGpu : public testing::TestWithParam<ResidentCase> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }
};

class ResidentLoaderGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }
};

TEST_P(ResidentLoaderCasesGpu, MakesTheBatchesOfTheHostLoader) {
  expect_batches_of_host(GetParam(), kResidentDevice);
}

INSTANTIATE_TEST_SUITE_P(ResidentLoader, ResidentLoaderCasesGpu,
                         testing::ValuesIn(resident_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_F(ResidentLoaderGpu, GivesEachRankItsSlice) { expect_slices_of_host(kResidentDevice); }

TEST_F(ResidentLoaderGpu, DoesEachOperationAsTheHostDoes) {
  expect_operations_of_host(kResidentDevice, "rand-m9-mstd0.5-inc1-n1-p1");
  expect_operations_of_host(kResidentDevice, "rand-m5-mstd5-n1-p1");
  expect_operations_of_host(kResidentDevice, "rand-m10-inc1-n1-p1");
}

TEST_F(ResidentLoaderGpu, EvaluatesAsTheHostDoes) { expect_evaluation_of_host(kResidentDevice); }

TEST_F(ResidentLoaderGpu, RepeatsBitForBit) {
  for (const ResidentCase& what : resident_cases()) {
    BothLoaders loaders(what, kResidentDevice);
    const at::Tensor step = step_tensor(5, kResidentDevice);
    const Batch first = loaders.resident.make_buffers();
    loaders.resident.enqueue(first, 0, step.const_data_ptr<std::int64_t>());
    for (int i = 0; i < 5; ++i) {
      loaders.resident.enqueue(loaders.target.batch, 0, step.const_data_ptr<std::int64_t>());
      EXPECT_TRUE(at::equal(first.images, loaders.target.batch.images)) << what.name;
      EXPECT_TRUE(at::equal(first.labels, loaders.target.batch.labels)) << what.name;
    }
  }
}

// One capture serves all steps: the number is read where it lies.
TEST_F(ResidentLoaderGpu, ReplaysACaptureForAnyStep) {
  BothLoaders loaders({"captured", 32, 32, "cifar_strong", ""}, kResidentDevice, {1, 48});
  const auto stream = c10::cuda::getStreamFromPool(false, 0);
  const c10::cuda::CUDAStreamGuard guard(stream);
  at::Tensor step = step_tensor(0, kResidentDevice);
  const Batch targets[] = {loaders.resident.make_buffers(), loaders.resident.make_buffers()};
  const auto enqueue = [&] {
    for (const std::int64_t i : {0, 1}) {
      loaders.resident.enqueue(targets[i], i, step.const_data_ptr<std::int64_t>());
    }
  };
  at::cuda::CUDAGraph graph;
  stream.synchronize();
  graph.capture_begin();
  enqueue();
  graph.capture_end();
  for (const std::int64_t number : {0, 7, 2}) {
    step.fill_(number);
    enqueue();
    const at::Tensor direct = at::cat({targets[0].images, targets[1].images});
    for (const Batch& target : targets) target.images.fill_(-1);
    graph.replay();
    EXPECT_TRUE(at::equal(at::cat({targets[0].images, targets[1].images}), direct)) << number;
    const Apart apart = loaders.check(number);
    expect_within_a_level(apart, cat("step ", number));
    EXPECT_TRUE(at::equal(targets[1].images, loaders.target.batch.images));
  }
  graph.reset();
}

#endif

}  // namespace
}  // namespace ablate
