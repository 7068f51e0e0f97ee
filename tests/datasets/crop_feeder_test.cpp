#include <gtest/gtest.h>

#include "tests/datasets/crop_batches.h"
#include "tests/support/datasets.h"
#include "tests/support/gpu.h"

#if ABLATE_HAS_CUDA

#include "datasets/device/crop_feeder.h"

namespace ablate {
namespace {

constexpr std::int64_t kFedCrops = 32;

class CropFeederGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }

  LoaderOptions options() const {
    return {.seed = 3, .global_batch = kFedCrops, .mix_group = 8, .threads = 2, .prefetch = 3};
  }

  std::unique_ptr<CropFeeder> make_feeder(const AugmentRecipe& recipe, bool as_half = false) const {
    return std::make_unique<CropFeeder>(
        std::make_unique<CropLoader>(dataset_, recipe, options(), /*pinned=*/true), device_,
        as_half);
  }

  /// Copies each of `steps` batches after slow work of the consumer: what the feeder wrote too
  /// early would show. Values of drawn numbers may differ in their last bits.
  void expect_batches(CropFeeder& feeder, TrainLoader& host, int steps) {
    const at::Tensor weights = at::randn({2048, 2048}, at::kFloat).to(device_);
    std::vector<Batch> seen;
    const auto stream = c10::cuda::getStreamFromPool(false, 0);
    c10::cuda::device_synchronize();
    const c10::cuda::CUDAStreamGuard guard(stream);
    for (int i = 0; i < steps; ++i) {
      const Batch& batch = feeder.next(stream);
      at::Tensor slow = weights;
      for (int k = 0; k < 10; ++k) slow = at::mm(slow, weights).mul_(1e-2);
      Batch copy = batch;
      copy.images = batch.images.clone();
      copy.labels = batch.labels.clone();
      if (batch.mix.defined()) copy.mix = batch.mix.clone();
      if (batch.mix.defined()) copy.other_labels = batch.other_labels.clone();
      seen.push_back(copy);
      feeder.prefetch();
    }
    stream.synchronize();
    for (const Batch& batch : seen) expect_equal(batch, host.next());
  }

  void expect_equal(const Batch& batch, const Batch& truth) {
    const test::Apart apart(batch.images, truth.images, dataset_->facts().normalization);
    EXPECT_LE(apart.level, 1.01);
    EXPECT_LE(apart.share, 1e-3);
    EXPECT_TRUE(at::equal(batch.labels.cpu(), truth.labels));
    EXPECT_EQ(batch.indices, truth.indices);
    ASSERT_EQ(batch.mix.defined(), truth.mix.defined());
    if (!truth.mix.defined()) return;
    EXPECT_TRUE(at::equal(batch.other_labels.cpu(), truth.other_labels));
    EXPECT_TRUE(at::allclose(batch.mix.cpu(), truth.mix));
  }

  const at::Device device_{at::kCUDA, 0};
  std::shared_ptr<const Dataset> dataset_ = std::make_shared<test::Sizes>(100);
};

TEST_F(CropFeederGpu, BringsTrainLoadersBatches) {
  for (const int side : {32, 112}) {
    for (const char* settings :
         {"repeated = 1", "randaugment = \"rand-m8-mstd1-n4-p1\"\nerasing = 0.9",
          "interpolation = \"bilinear\"\nrandaugment = \"\"\nmix_prob = 0.5",
          "crop = \"none\"\ncrop_pct = 0.8", "mixup = 0.0\ncutmix = 0.0"}) {
      const AugmentRecipe recipe = test::make_recipe("deit", side, settings);
      const auto feeder = make_feeder(recipe);
      TrainLoader host(dataset_, recipe, options());
      feeder->seek(0, 0);
      host.seek(0, 0);
      expect_batches(*feeder, host, 5);
    }
  }
}

// Resampling draws nothing, so every bit is the host's.
TEST_F(CropFeederGpu, ResamplesToTheBit) {
  const AugmentRecipe recipe =
      test::make_recipe("deit", 64, "randaugment = \"\"\nerasing = 0.0\nmixup = 0.0\ncutmix = 0.0");
  const auto feeder = make_feeder(recipe);
  TrainLoader host(dataset_, recipe, options());
  feeder->seek(0, 0);
  host.seek(0, 0);
  for (int i = 0; i < 3; ++i) {
    const Batch& batch = feeder->next(c10::cuda::getCurrentCUDAStream());
    EXPECT_TRUE(at::equal(batch.images.cpu(), host.next().images));
  }
}

TEST_F(CropFeederGpu, ForgetsWhatItFetchedAheadAtASeek) {
  const AugmentRecipe recipe = test::make_recipe("deit", 32);
  const auto feeder = make_feeder(recipe);
  TrainLoader host(dataset_, recipe, options());
  for (const std::int64_t epoch : {2, 0, 1}) {
    feeder->seek(epoch, 1);
    host.seek(epoch, 1);
    expect_batches(*feeder, host, 3);
  }
}

TEST_F(CropFeederGpu, HalvesAreTheFloatsRoundedOnce) {
  for (const char* settings : {"mix_prob = 0.5", "mixup = 0.0", "mixup = 0.0\ncutmix = 0.0"}) {
    const AugmentRecipe recipe = test::make_recipe("deit", 47, settings);
    const auto floats = make_feeder(recipe), halves = make_feeder(recipe, /*as_half=*/true);
    floats->seek(0, 0);
    halves->seek(0, 0);
    for (int i = 0; i < 4; ++i) {
      const Batch& exact = floats->next(c10::cuda::getCurrentCUDAStream());
      const Batch& rounded = halves->next(c10::cuda::getCurrentCUDAStream());
      EXPECT_TRUE(at::equal(rounded.images, exact.images.to(at::kBFloat16))) << settings;
      EXPECT_TRUE(at::equal(rounded.labels, exact.labels));
      if (!recipe.mixing.enabled()) continue;
      EXPECT_TRUE(at::equal(rounded.other_labels, exact.other_labels));
      EXPECT_TRUE(at::equal(rounded.mix, exact.mix));
    }
  }
}

// Evaluation draws nothing either; the last batch is padded, and whole again in the next pass.
TEST_F(CropFeederGpu, EvaluatesToTheBit) {
  for (const char* settings : {"crop_pct = 0.875", "eval_resize = 70"}) {
    const AugmentRecipe recipe = test::make_recipe("deit", 48, settings);
    EvalLoader host(dataset_, recipe, options());
    CropEvalLoader loader(dataset_, recipe, options(), /*pinned=*/true);
    DeviceCrops crops(loader, device_);
    for (const std::int64_t limit : {kFedCrops + 5, std::int64_t{0}}) {
      host.start(limit);
      loader.start(limit);
      ASSERT_EQ(loader.batches(), host.batches());
      for (std::int64_t i = 0; i < host.batches(); ++i) {
        const Batch& batch = crops.next(c10::cuda::getCurrentCUDAStream());
        const Batch truth = host.next();
        EXPECT_TRUE(at::equal(batch.images.cpu(), truth.images));
        EXPECT_TRUE(at::equal(batch.labels.cpu(), truth.labels));
        EXPECT_TRUE(at::equal(batch.weights.cpu(), truth.weights));
        EXPECT_EQ(batch.indices, truth.indices);
        EXPECT_EQ(batch.first_position, truth.first_position);
      }
    }
  }
}

}  // namespace
}  // namespace ablate

#endif
