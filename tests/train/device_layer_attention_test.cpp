#include <gtest/gtest.h>

#include "methods/method_stack.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "tests/support/gpu.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "runner/train/device_step.h"
#include "runner/train/finals.h"

namespace ablate {
namespace {

/// Losses and final weights of some captured steps of a small network with a method in it.
struct TrainedSteps {
  std::vector<double> losses;
  at::Tensor weights;
};

TrainedSteps train_connected(const char* method, bool fused, kernels::GemmChoices& choices) {
  const auto model = test::make_model("resnet20", "image_size = 16", 10, /*bn_group=*/4);
  model->initialize(3);
  test::MethodContext context(*model);
  MethodStack({test::method_component(method)}).apply(context);
  move_model(*model, at::Device(at::kCUDA, 0), at::kFloat);
  model->train();
  const Value defaults;
  Params task_params(defaults, "test"), optimizer_params(defaults, "test");
  const auto task = Registry<TaskInfo>::get("classification").make(task_params, {});
  const auto optimizer = Registry<OptimizerInfo>::get("sgd").make(optimizer_params);
  ParameterArena arena(*model);
  optimizer->prepare(arena);
  Batch inputs;
  inputs.images = test::wavy_images(8, model->image_size()).to(at::kCUDA);
  inputs.labels = at::arange(8, at::kLong).to(at::kCUDA);
  const auto loss = [&](const Batch& batch, ForwardState& state) {
    return task->loss(model->forward(batch.images, state), batch);
  };
  DeviceStep step({.model = *model,
                   .optimizer = *optimizer,
                   .arena = arena,
                   .loss = loss,
                   .batch = 8,
                   .first_position = 0,
                   .seed = 7,
                   .fused = fused,
                   .choices = choices});
  TrainedSteps result;
  for (std::int64_t i = 0; i < 20; ++i) {
    step.load(0, inputs);
    step.enqueue({.step = i, .lr = 0.02});
    result.losses.push_back(step.wait().loss);
  }
  EXPECT_TRUE(step.captured()) << method;
  if (fused) choices = step.context().gemm().choices();
  result.weights = arena.parameters().clone();
  return result;
}

// With drop-path, whose numbers change from step to step without the host.
TEST(DeviceLayerAttentionGpu, CapturedStepsLearnAndRepeatBitForBit) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  for (const char* method : {"name = 'mrla_base'", "name = 'mrla_light'", "name = 'dla_base'"}) {
    for (const bool fused : {true, false}) {
      SCOPED_TRACE(cat(method, fused ? ", fused" : ", plain"));
      kernels::GemmChoices choices;
      const TrainedSteps first = train_connected(method, fused, choices);
      const TrainedSteps again = train_connected(method, fused, choices);
      EXPECT_LT(first.losses.back(), 0.8 * first.losses.front());
      EXPECT_EQ(first.losses, again.losses);
      EXPECT_TRUE(at::equal(first.weights, again.weights));
    }
  }
}

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
