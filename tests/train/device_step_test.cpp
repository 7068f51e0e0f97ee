#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "methods/models/half_images.h"
#include "runner/core/error.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "runner/train/device_forward.h"
#include "runner/train/device_step.h"
#include "runner/train/finals.h"

namespace ablate {
namespace {

constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kClasses = 100;

const at::Device kDevice(at::kCUDA, 0);

/// A model with everything that training needs, on the device.
struct DeviceSubject {
  explicit DeviceSubject(const std::string& settings, std::int64_t batch = kBatch)
      : model(test::make_model("vit", settings, kClasses)) {
    model->initialize(3);
    move_model(*model, kDevice, at::kFloat);
    model->train();
    const Value smoothing = Value::Table{{"label_smoothing", 0.1}};
    Params task_params(smoothing, "test");
    task = Registry<TaskInfo>::get("classification").make(task_params, {});
    const Value defaults;
    Params optimizer_params(defaults, "test");
    optimizer = Registry<OptimizerInfo>::get("adamw").make(optimizer_params);
    arena.emplace(*model);
    optimizer->prepare(*arena);
    inputs.images = test::wavy_images(batch, model->image_size()).to(kDevice);
    inputs.labels = at::arange(batch, at::kLong).remainder(kClasses).to(kDevice);
  }

  DeviceStep::Parts step_parts() {
    return {.model = *model,
            .optimizer = *optimizer,
            .arena = *arena,
            .loss =
                [this](const Batch& batch, ForwardState& state) {
                  return task->loss(model->forward(batch.images, state), batch);
                },
            .batch = inputs.labels.size(0),
            .first_position = 0,
            .seed = 7};
  }
  DeviceStep make_step() { return DeviceStep(step_parts()); }

  std::shared_ptr<Model> model;
  std::unique_ptr<Task> task;
  std::unique_ptr<Optimizer> optimizer;
  std::optional<ParameterArena> arena;
  Batch inputs;
};

class DeviceStepGpu : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }
};

/// The gradient of the plain operations in the precision that the model is in.
at::Tensor plain_gradient(DeviceSubject& subject, at::ScalarType type) {
  at::globalContext().setAllowTF32CuBLAS(false);
  std::vector<at::Tensor> flat;
  ForwardState state;
  state.seed = 7;
  const auto model = subject.model;
  move_model(*model, kDevice, type);
  for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad() = at::Tensor();
  const at::Tensor output = model->forward(subject.inputs.images.to(type), state);
  subject.task->loss(output.to(at::kFloat), subject.inputs).backward();
  const auto parameters = model->parameters();
  for (std::size_t i = parameters.size(); i-- > 0;) {
    flat.push_back(parameters[i].grad().to(at::kFloat).flatten());
  }
  return at::cat(flat);
}

at::Tensor fused_gradient(DeviceSubject& subject) {
  DeviceStep step = subject.make_step();
  step.load(0, subject.inputs);
  step.enqueue({.step = 0, .lr = 0.0});
  EXPECT_TRUE(step.wait().finite);
  std::vector<at::Tensor> flat;
  for (const ArenaSegment& segment : subject.arena->segments()) {
    flat.push_back(ParameterArena::part(subject.arena->gradients(), segment).flatten().clone());
  }
  return at::cat(flat);
}

double relative_error(const at::Tensor& value, const at::Tensor& truth) {
  return ((value - truth).norm() / truth.norm()).item<double>();
}

// Fused operations may lose what bfloat16 loses, and no more: their residual stream is float.
TEST_P(DeviceStepGpu, GradientsAreNearerToSinglePrecisionThanPlainBfloat16) {
  DeviceSubject subject(GetParam());
  const at::Tensor fused = fused_gradient(subject);
  DeviceSubject plain(GetParam());
  const at::Tensor truth = plain_gradient(plain, at::kFloat);
  const double error = relative_error(fused, truth);
  const double coarse = relative_error(plain_gradient(plain, at::kBFloat16), truth);
  std::cout << "relative error of the gradient: fused " << error << ", plain bfloat16 " << coarse
            << "\n";
  EXPECT_LT(error, 0.01);
  EXPECT_LT(error, coarse);
}

TEST_P(DeviceStepGpu, CapturedStepsRepeatBitForBitAndLearn) {
  // Choices made by timing differ from run to run; a run keeps those it began with.
  kernels::GemmChoices choices;
  const auto train = [&] {
    DeviceSubject subject(GetParam());
    DeviceStep step = subject.make_step();
    step.context().gemm().set_choices(choices);
    std::vector<double> losses;
    for (std::int64_t i = 0; i < 60; ++i) {
      step.load(0, subject.inputs);
      step.enqueue({.step = i, .lr = 1e-3, .clip_norm = 1.0});
      losses.push_back(step.wait().loss);
    }
    choices = step.context().gemm().choices();
    return std::pair(losses, subject.arena->parameters().clone());
  };
  const auto [losses, weights] = train();
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  const auto [again, same] = train();
  EXPECT_EQ(losses, again);
  EXPECT_TRUE(at::equal(weights, same));
}

TEST_P(DeviceStepGpu, AnImageThatIsNotFiniteCostsOneUpdate) {
  DeviceSubject subject(GetParam());
  DeviceStep step = subject.make_step();
  Batch broken = subject.inputs;
  broken.images = subject.inputs.images.clone();
  broken.images[1].fill_(std::numeric_limits<float>::quiet_NaN());
  std::int64_t updates = 0;
  for (std::int64_t i = 0; i < 8; ++i) {
    const bool bad = i == 1 || i == 5;  // eager and captured
    const at::Tensor before = subject.arena->parameters().clone();
    step.load(0, bad ? broken : subject.inputs);
    step.enqueue({.step = i, .lr = 1e-3});
    const DeviceStepResult result = step.wait();
    updates += bad ? 0 : 1;
    EXPECT_EQ(result.finite, !bad) << i;
    EXPECT_EQ(result.updates, updates) << i;
    EXPECT_EQ(at::equal(before, subject.arena->parameters()), bad) << i;
  }
  EXPECT_TRUE(step.captured());
}

TEST_P(DeviceStepGpu, WhatCannotBeCapturedRunsAllTheSame) {
  const auto losses_of = [](DeviceSubject& subject, DeviceStep& step) {
    std::vector<double> losses;
    for (std::int64_t i = 0; i < 8; ++i) {
      step.load(0, subject.inputs);
      step.enqueue({.step = i, .lr = 1e-3});
      losses.push_back(step.wait().loss);
    }
    return losses;
  };
  DeviceSubject subject(GetParam());
  DeviceStep captured = subject.make_step();
  const auto expected = losses_of(subject, captured);
  ASSERT_TRUE(captured.captured());

  DeviceSubject other(GetParam());
  DeviceStep::Parts parts = other.step_parts();
  parts.choices = captured.context().gemm().choices();
  parts.loss = [&other](const Batch& batch, ForwardState& state) {
    const at::Tensor loss = other.task->loss(other.model->forward(batch.images, state), batch);
    EXPECT_GT(loss.item<double>(), 0.0);  // waits for the device
    return loss;
  };
  DeviceStep waiting(std::move(parts));
  const auto found = losses_of(other, waiting);
  EXPECT_FALSE(waiting.captured());
  // Steps before the choices were settled may have been timed ones.
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-2);
}

TEST_P(DeviceStepGpu, SeveralStepsMayBeUnderWay) {
  DeviceSubject subject(GetParam());
  DeviceStep step = subject.make_step();
  for (std::int64_t i = 0; i < 12; ++i) {
    if (step.outstanding() == DeviceStep::kSlots) step.take();
    step.load(0, subject.inputs);
    step.enqueue({.step = i, .lr = 1e-3, .wishes = {.stop = i == 10, .checkpoint = i == 11}});
  }
  ASSERT_EQ(step.outstanding(), DeviceStep::kSlots);
  EXPECT_EQ(step.take().updates, 9);
  EXPECT_EQ(step.take().updates, 10);
  const DeviceStepResult stop = step.take(), checkpoint = step.take();
  EXPECT_TRUE(stop.wishes.stop && !stop.wishes.checkpoint);
  EXPECT_TRUE(checkpoint.wishes.checkpoint && !checkpoint.wishes.stop);
  EXPECT_GT(checkpoint.seconds, 0.0);
  step.load(0, subject.inputs);
  EXPECT_THROW(step.take(), BugError);
}

// Models round images first of all, so that it does not matter who does it.
TEST_P(DeviceStepGpu, HalfImagesChangeNoBit) {
  kernels::GemmChoices choices;
  const auto train = [&](bool as_half) {
    DeviceSubject subject(GetParam());
    EXPECT_TRUE(takes_half_images(*subject.model));
    DeviceStep::Parts parts = subject.step_parts();
    parts.half_images = as_half;
    parts.choices = choices;
    DeviceStep step(std::move(parts));
    for (std::int64_t i = 0; i < 6; ++i) {
      step.load(0, subject.inputs);
      step.enqueue({.step = i, .lr = 1e-3});
      EXPECT_TRUE(step.wait().finite);
    }
    choices = step.context().gemm().choices();
    EXPECT_EQ(step.inputs().images.scalar_type(), as_half ? at::kBFloat16 : at::kFloat);
    return subject.arena->parameters().clone();
  };
  train(false);  // finds the algorithms
  EXPECT_TRUE(at::equal(train(false), train(true)));
}

// "input-bound" is said of the time in which the device waits, not the host.
TEST_P(DeviceStepGpu, TellsHowLongTheDeviceWaitedForImages) {
  constexpr std::chrono::milliseconds kLate(60);
  DeviceSubject subject(GetParam());
  DeviceStep step = subject.make_step();
  for (std::int64_t i = 0; i < 6; ++i) {
    if (i > 0) std::this_thread::sleep_for(kLate);
    step.load(0, subject.inputs);
    step.enqueue({.step = i, .lr = 1e-3});
    const DeviceStepResult result = step.wait();
    EXPECT_GE(result.idle, i > 0 ? 0.9e-3 * static_cast<double>(kLate.count()) : 0.0);
    EXPECT_LE(result.idle, result.seconds);
  }
}

TEST_P(DeviceStepGpu, ForwardPassesAgreeWithPlainOnes) {
  DeviceSubject subject(GetParam());
  subject.model->eval();
  DeviceForward forward({.model = *subject.model, .batch = kBatch});
  for (int i = 0; i < 5; ++i) forward.enqueue(subject.inputs.images);
  const at::Tensor logits = forward.wait().to(at::kFloat);
  at::globalContext().setAllowTF32CuBLAS(false);
  const at::Tensor truth = test::logits_of(*subject.model, subject.inputs.images);
  EXPECT_LT(relative_error(logits, truth), 0.02);
}

TEST_P(DeviceStepGpu, PlainForwardPassesAreCapturedToo) {
  DeviceSubject subject(GetParam());
  subject.model->eval();
  at::globalContext().setAllowTF32CuBLAS(false);
  DeviceForward forward({.model = *subject.model, .batch = kBatch, .fused = false});
  for (int i = 0; i < 3; ++i) forward.enqueue(subject.inputs.images);
  const at::Tensor truth = test::logits_of(*subject.model, subject.inputs.images);
  EXPECT_EQ(forward.wait().scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(forward.logits(), truth), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, DeviceStepGpu,
    testing::Values("image_size = 32\npatch_size = 4\nembed_dim = 192\ndepth = 3\nnum_heads = 3\n"
                    "drop_path = 0.3",
                    "image_size = 224\npatch_size = 16\nembed_dim = 384\ndepth = 2\nnum_heads = 6",
                    "image_size = 48\npatch_size = 8\nembed_dim = 96\ndepth = 2\nnum_heads = 3\n"
                    "drop_path = 0.2\ndistilled = true"));

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
