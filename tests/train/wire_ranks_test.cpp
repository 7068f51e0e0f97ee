#include <gtest/gtest.h>

#include "distributed/launcher.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"
#include "tests/support/own_ranks.h"
#include "tests/support/run_records.h"
#include "tests/train/run_tables.h"

#if ABLATE_HAS_CUDA

#include "runner/train/device_step.h"
#include "runner/train/finals.h"

// What `wire = "bf16"` costs: the error of a reduced gradient, and where training ends.
// Two GPUs: test_train --gtest_filter='WireRanksGpu.*'

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kWireBatch = 64;

/// The gradient that one step leaves in the arena: this rank's own, or with a communicator the sum
/// over ranks. Plain operations in single precision, so that only the wire rounds.
at::Tensor gradient_by(Communicator* communicator, Wire wire, const Communicator& world,
                       at::Device device) {
  const auto model =
      make_model("vit", "image_size = 32\npatch_size = 4\nembed_dim = 192\nnum_heads = 3", 100);
  model->initialize(3);
  move_model(*model, device, at::kFloat);
  model->train();
  const Value defaults;
  Params task_params(defaults, "test"), optimizer_params(defaults, "test");
  const auto task = Registry<TaskInfo>::get("classification").make(task_params, {});
  const auto optimizer = Registry<OptimizerInfo>::get("adamw").make(optimizer_params);
  ParameterArena arena(*model);
  optimizer->prepare(arena);
  const std::int64_t first = world.rank() * kWireBatch;
  DeviceStep step({.model = *model,
                   .optimizer = *optimizer,
                   .arena = arena,
                   .loss =
                       [&](const Batch& batch, ForwardState& state) {
                         return task->loss(model->forward(batch.images, state), batch);
                       },
                   .batch = kWireBatch,
                   .first_position = first,
                   .seed = 7,
                   .fused = false,
                   .communicator = communicator,
                   .wire = wire});
  Batch inputs;
  inputs.images = wavy_images(kWireBatch * world.size(), 32).narrow(0, first, kWireBatch);
  inputs.labels = at::arange(first, first + kWireBatch, at::kLong).remainder(100);
  step.load(0, inputs);
  step.enqueue({.step = 0, .lr = 0.0});
  EXPECT_TRUE(step.wait().finite);
  return arena.gradients().clone();
}

double wire_norm(const at::Tensor& tensor) { return tensor.norm().item<double>(); }

/// A gradient, and each partial sum of gradients, is rounded to 8 bits once: 2^-9 of it at most.
void expect_rounded_sum(Communicator& world, at::Device device) {
  const auto nccl = make_nccl_communicator(world, device.index());
  const at::Tensor own = gradient_by(nullptr, Wire::Gradients, world, device);
  at::Tensor truth = own.clone();
  nccl->all_reduce(truth);
  const at::Tensor plain = gradient_by(nccl.get(), Wire::Gradients, world, device);
  const at::Tensor rounded = gradient_by(nccl.get(), Wire::Bfloat16, world, device);
  const double norms = world.all_reduce(wire_norm(own)), size = wire_norm(truth);
  const double error = wire_norm(rounded - truth);
  EXPECT_LT(wire_norm(plain - truth), 1e-5 * size);
  EXPECT_GT(error, 0) << "nothing was rounded";
  EXPECT_LT(error, 1.01 / 512 * world.size() * norms);
  if (world.rank() == 0) {
    std::cout << "relative error of a gradient reduced over " << world.size()
              << " ranks: bf16 on the wire " << error / size << ", fp32 "
              << wire_norm(plain - truth) / size << "\n";
  }
}

/// An epoch is 16 steps; few images of many classes, so that training does not end at nothing.
constexpr std::string_view kWireVit = R"(
epochs = 24
global_batch = 128
precision = "bf16"
clip_norm = 1.0
evaluate_every = 100
[dataset]
name = "synthetic"
train_size = 2048
test_size = 1000
classes = 20
image_size = 16
[model]
name = "vit"
image_size = 16
patch_size = 4
embed_dim = 64
depth = 4
num_heads = 2
drop_path = 0.1
[optimizer]
name = "adamw"
lr = 1e-3
)";

RunSpec wire_spec(const std::string& wire, int seed) {
  return resolve_table(kWireVit,
                       joined(all_randomness(), {"wire=" + wire, "seed=" + std::to_string(seed)}));
}

constexpr int kWireSeeds = 3;

/// One rank of all of it, in a process that WireRanksGpu started.
TEST(WireRankGpu, RunsItsShare) {
  const char* out = std::getenv("ABLATE_TEST_OUT");
  if (out == nullptr) GTEST_SKIP() << "a part of WireRanksGpu";
  be_exact_and_repeatable();
  StoreSession session(rendezvous_of_environment().value());
  Communicator& world = session.world();
  const auto index = static_cast<c10::DeviceIndex>(local_rank(world));
  c10::cuda::set_device(index);
  expect_rounded_sum(world, {at::kCUDA, index});
  for (const char* wire : {"fp32", "bf16"}) {
    for (int seed = 0; seed < kWireSeeds; ++seed) {
      StopSignal stop;
      const Outcome outcome =
          execute_run(wire_spec(wire, seed), environment_in(out, "cuda"), world, stop);
      EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
    }
  }
}

TEST(WireRanksGpu, Bfloat16RoundsGradientsOnceAndTrainingEndsAlike) {
  if (!has_gpu() || c10::cuda::device_count() < 2) GTEST_SKIP() << "needs 2 GPUs";
  const TempFolder out;
  expect_pass_as_ranks(2, "WireRankGpu.RunsItsShare", {{"ABLATE_TEST_OUT", out.path().string()}});
  double difference = 0;
  for (int seed = 0; seed < kWireSeeds; ++seed) {
    const Environment environment = environment_in(out.path(), "cuda");
    auto full = read_run(wire_spec("fp32", seed), environment).finals,
         half = read_run(wire_spec("bf16", seed), environment).finals;
    std::cout << "seed " << seed << ", fp32 and bf16 on the wire: test loss " << full.at("loss")
              << " and " << half.at("loss") << ", top1 " << full.at("top1") << " and "
              << half.at("top1") << "\n";
    EXPECT_NE(full.at("loss"), half.at("loss")) << "the wire changed nothing";
    EXPECT_LT(full.at("loss"), 0.8 * std::log(20)) << "nothing was learnt";
    difference += (half.at("loss") / full.at("loss") - 1) / kWireSeeds;
  }
  EXPECT_LT(std::abs(difference), 0.1);
}

}  // namespace
}  // namespace ablate::test

#endif  // ABLATE_HAS_CUDA
