#include <gtest/gtest.h>

#include "methods/models/batch_norm.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include <limits>

#include "runner/train/device_step.h"
#include "runner/train/finals.h"

namespace ablate {
namespace {

constexpr std::int64_t kImages = 8;

/// A residual network with everything that training needs, on the device.
struct ResNetSubject {
  ResNetSubject() : model(test::make_model("resnet20", "", 10, /*bn_group=*/4)) {
    model->initialize(3);
    move_model(*model, at::Device(at::kCUDA, 0), at::kFloat);
    model->train();
    const Value defaults;
    Params task_params(defaults, "test"), optimizer_params(defaults, "test");
    task = Registry<TaskInfo>::get("classification").make(task_params, {});
    optimizer = Registry<OptimizerInfo>::get("sgd").make(optimizer_params);
    arena.emplace(*model);
    optimizer->prepare(*arena);
    inputs.images = test::wavy_images(kImages, model->image_size()).to(at::kCUDA);
    inputs.labels = at::arange(kImages, at::kLong).to(at::kCUDA);
  }
  DeviceStep::Parts parts() {
    return {.model = *model,
            .optimizer = *optimizer,
            .arena = *arena,
            .loss =
                [this](const Batch& batch, ForwardState& state) {
                  return task->loss(model->forward(batch.images, state), batch);
                },
            .batch = kImages,
            .first_position = 0,
            .seed = 7};
  }
  at::Tensor buffers() const {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& buffer : model->buffers()) {
      flat.push_back(buffer.to(at::kDouble).flatten());
    }
    return at::cat(flat);
  }

  std::shared_ptr<Model> model;
  std::unique_ptr<Task> task;
  std::unique_ptr<Optimizer> optimizer;
  std::optional<ParameterArena> arena;
  Batch inputs;
};

class DeviceResNetGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
};

TEST_F(DeviceResNetGpu, CapturedStepsLearnAndRepeatBitForBit) {
  kernels::GemmChoices choices;
  const auto train = [&] {
    ResNetSubject subject;
    DeviceStep::Parts parts = subject.parts();
    parts.choices = choices;
    DeviceStep step(std::move(parts));
    std::vector<double> losses;
    for (std::int64_t i = 0; i < 30; ++i) {
      step.load(0, subject.inputs);
      step.enqueue({.step = i, .lr = 0.02});
      losses.push_back(step.wait().loss);
    }
    EXPECT_TRUE(step.captured());
    choices = step.context().gemm().choices();
    // Two groups of four images a step.
    const auto buffers = subject.model->named_buffers();
    EXPECT_EQ(buffers["layer2.0.bn1.num_batches_tracked"].item<std::int64_t>(), 60);
    return std::tuple(losses, subject.arena->parameters().clone(), subject.buffers());
  };
  const auto [losses, weights, statistics] = train();
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  const auto [again, same_weights, same_statistics] = train();
  EXPECT_EQ(losses, again);
  EXPECT_TRUE(at::equal(weights, same_weights));
  EXPECT_TRUE(at::equal(statistics, same_statistics));
}

TEST_F(DeviceResNetGpu, StatisticsOfAStepThatIsLeftOutAreNotKept) {
  ResNetSubject subject;
  DeviceStep step(subject.parts());
  Batch broken = subject.inputs;
  broken.images = subject.inputs.images.clone();
  broken.images[1].fill_(std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t i = 0; i < 8; ++i) {
    const bool bad = i == 1 || i == 5;  // eager and captured
    const at::Tensor before = subject.buffers();
    step.load(0, bad ? broken : subject.inputs);
    step.enqueue({.step = i, .lr = 0.01});
    EXPECT_EQ(step.wait().finite, !bad);
    EXPECT_EQ(at::equal(subject.buffers(), before), bad) << i;
  }
}

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
