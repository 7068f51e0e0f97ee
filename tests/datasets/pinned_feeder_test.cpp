#include <gtest/gtest.h>

#include "tests/datasets/device_batches.h"
#include "tests/support/gpu.h"

#if ABLATE_HAS_CUDA

#include "datasets/device/pinned_feeder.h"

namespace ablate {
namespace {

constexpr std::int64_t kFedBatch = 32;

class PinnedFeederGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }

  std::unique_ptr<TrainLoader> make_loader(const std::string& preset, bool pinned = false) const {
    return std::make_unique<TrainLoader>(
        dataset_, test::make_recipe(preset, 32),
        LoaderOptions{
            .seed = 3, .global_batch = kFedBatch, .threads = 2, .prefetch = 3, .pinned = pinned});
  }

  /// Feeds `steps` batches and copies each after slow work of the consumer: what the feeder wrote
  /// too early would show.
  void expect_batches(PinnedFeeder& feeder, TrainLoader& host, int steps, bool ahead) {
    const at::Tensor weights = at::randn({2048, 2048}, at::kFloat).to(device_);
    std::vector<Batch> seen;
    const auto stream = c10::cuda::getStreamFromPool(false, 0);
    c10::cuda::device_synchronize();  // the weights are there
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
      if (ahead) feeder.prefetch();
    }
    stream.synchronize();
    for (const Batch& batch : seen) {
      const Batch truth = host.next();
      EXPECT_TRUE(at::equal(batch.images.cpu(), truth.images));
      EXPECT_TRUE(at::equal(batch.labels.cpu(), truth.labels));
      EXPECT_EQ(batch.indices, truth.indices);
      ASSERT_EQ(batch.mix.defined(), truth.mix.defined());
      if (!truth.mix.defined()) continue;
      EXPECT_TRUE(at::equal(batch.other_labels.cpu(), truth.other_labels));
      EXPECT_TRUE(at::equal(batch.mix.cpu(), truth.mix));
    }
  }

  const at::Device device_{at::kCUDA, 0};
  std::shared_ptr<const Dataset> dataset_ = std::make_shared<test::Varied>(100, 32);
};

TEST_F(PinnedFeederGpu, BringsTheLoadersBatches) {
  for (const char* preset : {"cifar", "cifar_strong"}) {
    for (const bool pinned : {false, true}) {
      for (const bool ahead : {false, true}) {
        const auto loader = make_loader(preset, pinned), host = make_loader(preset);
        PinnedFeeder feeder(*loader, device_);
        feeder.seek(0, 0);
        host->seek(0, 0);
        expect_batches(feeder, *host, 8, ahead);
      }
    }
  }
}

TEST_F(PinnedFeederGpu, ForgetsWhatItFetchedAheadAtASeek) {
  const auto loader = make_loader("cifar_strong"), host = make_loader("cifar_strong");
  PinnedFeeder feeder(*loader, device_);
  for (const std::int64_t epoch : {2, 0, 1}) {
    feeder.seek(epoch, 1);
    host->seek(epoch, 1);
    expect_batches(feeder, *host, 3, true);
  }
}

}  // namespace
}  // namespace ablate

#endif
