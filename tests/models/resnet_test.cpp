#include <map>
#include <mutex>
#include <vector>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "methods/models/batch_norm.h"
#include "methods/models/weights_io.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

using test::largest_difference;
using test::make_model;
using test::message_of;
using test::parameter_count;
using test::run_ranks;
using test::wavy_images;

// torchvision's counts, and those of the CIFAR bottleneck networks of layer-attention papers.
TEST(ResNet, HasThePublishedParameterCounts) {
  struct Row {
    const char* name;
    std::int64_t classes, count;
  };
  const Row rows[] = {{"resnet18", 1000, 11'689'512},  {"resnet34", 1000, 21'797'672},
                      {"resnet50", 1000, 25'557'032},  {"resnet101", 1000, 44'549'160},
                      {"resnet152", 1000, 60'192'808}, {"resnet20", 10, 220'378},
                      {"resnet56", 10, 591'322},       {"resnet110", 10, 1'147'738},
                      {"resnet20", 100, 243'508},      {"resnet56", 100, 614'452},
                      {"resnet110", 100, 1'170'868}};
  for (const Row& row : rows) {
    EXPECT_EQ(parameter_count(*make_model(row.name, "", row.classes)), row.count) << row.name;
  }
}

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

/// Names and shapes of torchvision's state dict, written down from the architecture.
struct ExpectedResNet {
  bool bottleneck, small_images;
  std::vector<std::int64_t> blocks;
  Shapes shapes;

  void convolution(const std::string& conv, const std::string& norm, std::int64_t in,
                   std::int64_t out, std::int64_t kernel) {
    shapes[conv + ".weight"] = {out, in, kernel, kernel};
    for (const char* kind : {"weight", "bias", "running_mean", "running_var"}) {
      shapes[cat(norm, ".", kind)] = {out};
    }
    shapes[norm + ".num_batches_tracked"] = {};
  }

  void block(const std::string& name, std::int64_t in, std::int64_t planes, bool strided) {
    const std::int64_t out = bottleneck ? 4 * planes : planes;
    const auto conv = [&](int i, std::int64_t from, std::int64_t to, std::int64_t kernel) {
      convolution(cat(name, ".conv", i), cat(name, ".bn", i), from, to, kernel);
    };
    if (bottleneck) {
      conv(1, in, planes, 1);
      conv(2, planes, planes, 3);
      conv(3, planes, out, 1);
    } else {
      conv(1, in, planes, 3);
      conv(2, planes, planes, 3);
    }
    if (strided || in != out)
      convolution(name + ".downsample.0", name + ".downsample.1", in, out, 1);
  }

  Shapes all(std::int64_t classes) {
    std::int64_t planes = small_images ? 16 : 64, width = planes;
    convolution("conv1", "bn1", 3, planes, small_images ? 3 : 7);
    for (std::size_t stage = 0; stage < blocks.size(); ++stage, planes *= 2) {
      for (std::int64_t i = 0; i < blocks[stage]; ++i) {
        block(cat("layer", stage + 1, ".", i), width, planes, stage > 0 && i == 0);
        width = bottleneck ? 4 * planes : planes;
      }
    }
    shapes["fc.weight"] = {classes, width};
    shapes["fc.bias"] = {classes};
    return shapes;
  }
};

TEST(ResNet, HasTorchvisionsNamesAndShapes) {
  const std::pair<const char*, ExpectedResNet> rows[] = {
      {"resnet18", {false, false, {2, 2, 2, 2}, {}}},
      {"resnet50", {true, false, {3, 4, 6, 3}, {}}},
      {"resnet56", {true, true, {6, 6, 6}, {}}},
  };
  for (auto [name, expected] : rows) {
    Shapes found;
    for (const auto& [tensor_name, tensor] : named_tensors(*make_model(name, "", 100))) {
      found[tensor_name] = tensor.sizes().vec();
    }
    EXPECT_EQ(found, expected.all(100)) << name;
  }
}

TEST(ResNet, ZeroInitialisedResidualBlocksPassTheirInput) {
  const auto model = make_model("resnet20", "zero_init_residual = true");
  model->initialize(3);
  model->eval();
  const auto parameters = model->named_parameters();
  EXPECT_EQ(parameters["layer2.1.bn3.weight"].abs().max().item<double>(), 0.0);
  EXPECT_EQ(parameters["layer2.1.bn2.weight"].min().item<double>(), 1.0);
  const double std = parameters["layer3.1.conv2.weight"].std().item<double>();
  EXPECT_NEAR(std, std::sqrt(2.0 / (9 * 64)), 0.001);
}

at::Tensor feature_maps(std::int64_t batch) {
  return wavy_images(batch, 6, at::kDouble).view({batch, 3, 6, 6}) *
         at::tensor({1.0, 3.0, 0.2}, at::kDouble).view({1, 3, 1, 1});
}

std::shared_ptr<GroupBatchNorm2d> make_norm(std::int64_t group) {
  auto norm = std::make_shared<GroupBatchNorm2d>(3, group);
  norm->to(at::kDouble);
  const at::NoGradGuard no_grad;
  norm->weight.copy_(at::tensor({1.0, 0.5, 2.0}));
  norm->bias.copy_(at::tensor({0.1, -0.3, 0.0}));
  return norm;
}

/// torch's own batch norm with copies of the affine parameters.
struct TorchNorm {
  explicit TorchNorm(const GroupBatchNorm2d& norm)
      : weight(norm.weight.detach().clone().requires_grad_()),
        bias(norm.bias.detach().clone().requires_grad_()) {}

  at::Tensor forward(const at::Tensor& x, bool training = true) const {
    return at::batch_norm(x, weight, bias, running_mean, running_var, training, 0.1, 1e-5, false);
  }

  at::Tensor weight, bias;
  at::Tensor running_mean = at::zeros({3}, at::kDouble), running_var = at::ones({3}, at::kDouble);
};

TEST(GroupBatchNorm, OfOneGroupIsTorchsBatchNorm) {
  const auto norm = make_norm(0);
  TorchNorm reference(*norm);
  const auto self = make_self_communicator();
  for (int step = 0; step < 3; ++step) {
    at::Tensor a = (feature_maps(4) + step).requires_grad_(),
               b = a.detach().clone().requires_grad_();
    ForwardState state;
    state.step = step;
    const at::Tensor ours = norm->forward(a, state), theirs = reference.forward(b);
    EXPECT_LT(largest_difference(ours, theirs), 1e-12);
    const at::Tensor upstream = feature_maps(4).cos();
    ours.backward(upstream);
    theirs.backward(upstream);
    EXPECT_LT(largest_difference(a.grad(), b.grad()), 1e-12);
    EXPECT_LT(largest_difference(norm->weight.grad(), reference.weight.grad()), 1e-10);
    EXPECT_LT(largest_difference(norm->bias.grad(), reference.bias.grad()), 1e-10);
  }
  synchronize_running_statistics(*norm, *self);
  EXPECT_LT(largest_difference(norm->running_mean, reference.running_mean), 1e-12);
  EXPECT_LT(largest_difference(norm->running_var, reference.running_var), 1e-12);
  EXPECT_EQ(norm->num_batches_tracked.item<std::int64_t>(), 3);
  norm->eval();
  ForwardState state;
  EXPECT_LT(largest_difference(norm->forward(feature_maps(2), state),
                               reference.forward(feature_maps(2), false)),
            1e-12);
}

TEST(GroupBatchNorm, TakesEachGroupAloneAndTracksThemInOrder) {
  const auto norm = make_norm(2);
  TorchNorm reference(*norm);
  const at::Tensor x = feature_maps(6);
  std::vector<at::Tensor> parts;
  for (int g = 0; g < 3; ++g) parts.push_back(reference.forward(x.narrow(0, 2 * g, 2)));
  // Two passes of one step, as micro-batches: the first has two groups, the second one.
  ForwardState first, second;
  first.global_batch = second.global_batch = 6;
  second.first_position = 4;
  const at::Tensor ours =
      at::cat({norm->forward(x.narrow(0, 0, 4), first), norm->forward(x.narrow(0, 4, 2), second)});
  EXPECT_LT(largest_difference(ours, at::cat(parts)), 1e-12);
  synchronize_running_statistics(*norm, *make_self_communicator());
  EXPECT_LT(largest_difference(norm->running_mean, reference.running_mean), 1e-12);
  EXPECT_LT(largest_difference(norm->running_var, reference.running_var), 1e-12);
  EXPECT_EQ(norm->num_batches_tracked.item<std::int64_t>(), 3);
}

TEST(GroupBatchNorm, LeavesItsShareWhereAStepCollectsIt) {
  const auto norm = make_norm(2), host = make_norm(2);
  const at::Tensor share = at::zeros({2, 3}, at::kDouble);
  const std::map<const GroupBatchNorm2d*, at::Tensor> shares{{norm.get(), share}};
  const at::Tensor x = feature_maps(6);
  for (const std::int64_t first : {0, 4}) {  // two micro-batches
    ForwardState state;
    state.global_batch = 6;
    state.first_position = first;
    const at::Tensor part = x.narrow(0, first, first == 0 ? 4 : 2);
    host->forward(part, state);
    state.norm_shares = &shares;
    norm->forward(part, state);
  }
  const at::Tensor mean = norm->running_mean.clone(), var = norm->running_var.clone();
  synchronize_running_statistics(*norm, *make_self_communicator());
  EXPECT_TRUE(at::equal(norm->running_mean, mean));  // nothing was kept on the host
  synchronize_running_statistics(*host, *make_self_communicator());
  const double keep = 0.9 * 0.9 * 0.9;
  EXPECT_LT(largest_difference(keep * mean + share[0], host->running_mean), 1e-12);
  EXPECT_LT(largest_difference(keep * var + share[1], host->running_var), 1e-12);
}

struct Outcome {
  at::Tensor output, input_grad, weight_grad, bias_grad, running_mean, running_var;
};

/// Three training steps of a global batch of 8 on `ranks` ranks; gradients summed over ranks.
Outcome train_on(int ranks, std::int64_t group) {
  Outcome total;
  std::mutex mutex;
  std::vector<at::Tensor> outputs(static_cast<std::size_t>(ranks)), grads(outputs.size());
  run_ranks(ranks, [&](Communicator& world) {
    const auto norm = make_norm(group);
    const auto shared = make_group_communicator(world, group, 8, 0);
    const std::int64_t slice = 8 / ranks, first = world.rank() * slice;
    at::Tensor x, y;
    for (int step = 0; step < 3; ++step) {
      x = (feature_maps(8) * (step + 1)).narrow(0, first, slice).clone().requires_grad_();
      ForwardState state;
      state.step = step;
      state.first_position = first;
      state.global_batch = 8;
      state.bn_communicator = shared.get();
      norm->zero_grad();
      y = norm->forward(x, state);
      y.backward(feature_maps(8).cos().narrow(0, first, slice));
    }
    synchronize_running_statistics(*norm, world);
    at::Tensor weight_grad = norm->weight.grad().clone(), bias_grad = norm->bias.grad().clone();
    world.all_reduce(weight_grad);
    world.all_reduce(bias_grad);
    const std::lock_guard lock(mutex);
    outputs[static_cast<std::size_t>(world.rank())] = y.detach();
    grads[static_cast<std::size_t>(world.rank())] = x.grad();
    if (world.rank() == ranks - 1) {
      total = {{}, {}, weight_grad, bias_grad, norm->running_mean, norm->running_var};
    }
  });
  total.output = at::cat(outputs);
  total.input_grad = at::cat(grads);
  return total;
}

TEST(GroupBatchNorm, IsTheSameOnAnyNumberOfRanks) {
  for (const std::int64_t group : {0, 1, 2, 4, 8}) {
    const Outcome alone = train_on(1, group);
    for (const int ranks : {2, 4}) {
      const Outcome together = train_on(ranks, group);
      SCOPED_TRACE(cat("group ", group, ", ranks ", ranks));
      EXPECT_LT(largest_difference(alone.output, together.output), 1e-12);
      EXPECT_LT(largest_difference(alone.input_grad, together.input_grad), 1e-12);
      EXPECT_LT(largest_difference(alone.weight_grad, together.weight_grad), 1e-10);
      EXPECT_LT(largest_difference(alone.bias_grad, together.bias_grad), 1e-10);
      EXPECT_LT(largest_difference(alone.running_mean, together.running_mean), 1e-12);
      EXPECT_LT(largest_difference(alone.running_var, together.running_var), 1e-12);
    }
  }
}

TEST(GroupBatchNorm, RefusesGroupsThatPassesCut) {
  const auto world = make_self_communicator();
  EXPECT_EQ(make_group_communicator(*world, 4, 8, 0), nullptr);
  EXPECT_EQ(make_group_communicator(*world, 128, 8, 0), nullptr);  // at most the global batch
  EXPECT_EQ(make_group_communicator(*world, 4, 8, 4), nullptr);
  for (const auto& [group, micro] : {std::pair{3, 0}, std::pair{4, 2}, std::pair{8, 4}}) {
    const std::string message =
        message_of<SpecError>([&] { make_group_communicator(*world, group, 8, micro); });
    EXPECT_NE(message.find("choose a bn_group"), std::string::npos);
  }
}

TEST(GroupBatchNorm, RefusesToEvaluateStaleStatistics) {
  const auto norm = make_norm(0);
  ForwardState state;
  norm->forward(feature_maps(2), state);
  norm->eval();
  EXPECT_NE(
      message_of<BugError>([&] { norm->forward(feature_maps(2), state); }).find("synchronised"),
      std::string::npos);
}

TEST(ResNet, GivesEqualLogitsAndGradientsOnOneAndTwoRanks) {
  const at::Tensor images = wavy_images(4, 16, at::kDouble);
  const auto gradient_on = [&](int ranks) {
    at::Tensor gradient;
    run_ranks(ranks, [&](Communicator& world) {
      const auto model = make_model("resnet20", "image_size = 16", 5, 4);
      model->to(at::kDouble);
      model->initialize(7);
      const auto shared = make_group_communicator(world, 4, 4, 0);
      ForwardState state;
      const std::int64_t slice = 4 / ranks;
      state.first_position = world.rank() * slice;
      state.global_batch = 4;
      state.bn_communicator = shared.get();
      const at::Tensor logits =
          model->forward(images.narrow(0, state.first_position, slice), state);
      logits.square().sum().backward();
      std::vector<at::Tensor> parts;
      for (const at::Tensor& parameter : model->parameters())
        parts.push_back(parameter.grad().flatten());
      at::Tensor flat = at::cat(parts);
      world.all_reduce(flat);
      if (world.rank() == 0) gradient = flat;
    });
    return gradient;
  };
  const at::Tensor one = gradient_on(1), two = gradient_on(2);
  EXPECT_LT(((one - two).norm() / one.norm()).item<double>(), 1e-11);
}

}  // namespace
}  // namespace ablate
