#include <gtest/gtest.h>

#include "tests/methods/mrla_support.h"
#include "tests/support/captured_passes.h"
#include "tests/support/fused_passes.h"
#include "tests/support/gpu.h"

// Layer and channel attention on a CUDA device: plain operations against the CPU, fused ones
// against plain ones, and the same bits from a captured graph.

#if ABLATE_HAS_CUDA

#include <algorithm>
#include <optional>

#include "methods/models/fused/context.h"
#include "methods/models/fused/norms.h"
#include "methods/models/layer_maps.h"

namespace ablate {
namespace {

struct Setting {
  const char *model, *settings, *method;
};

/// A model with a method in it and one batch of images.
class AttentiveModel {
 public:
  AttentiveModel(const Setting& setting, at::Device device)
      : model(test::make_model(setting.model, setting.settings, 16, /*bn_group=*/4)) {
    model->initialize(5);
    test::apply_methods(*model, {setting.method});
    settle_gates();
    model->to(device);
    images = test::wavy_images(8, model->image_size()).to(device);
    upstream = test::wavy_maps(1, 8, 16, 1)[0].view({8, 16}).to(device, at::kFloat);
    for (at::Tensor& parameter : model->parameters()) {
      parameter.mutable_grad() = at::zeros_like(parameter);
    }
  }

  /// Gradients are zeroed and computed anew.
  void pass() {
    ForwardState state;
    if (context) {
      state.fused = &*context;
      state.norm_shares = &norms->parts();
      norms->begin_step();
    }
    {
      const at::NoGradGuard no_grad;
      for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad().zero_();
    }
    const at::Tensor output = model->forward(images, state).to(at::kFloat);
    (output * upstream).sum().backward();
    logits = output.detach();  // not its graph, which would belong to the stream of this pass
  }
  /// From now on by fused operations.
  void fuse() {
    const at::Device device = images.device();
    context.emplace(device);
    norms.emplace(*model, images.size(0));
    test::bind_parameters(*context, *model);
  }
  at::Tensor gradient() const {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& parameter : model->parameters()) {
      flat.push_back(parameter.grad().to(at::kCPU, at::kFloat).flatten());
    }
    return at::cat(flat);
  }

  std::shared_ptr<Model> model;
  at::Tensor images, upstream, logits;
  std::optional<FusedContext> context;
  std::optional<DeviceNorms> norms;

 private:
  /// Shifts that open or close each ReLU of a residual network for good: one near its threshold
  /// opens by rounding, and a gradient that passes or does not is no rounding error.
  void settle_gates() const {
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      const std::string& name = item.key();
      if (name.find(".bn") == std::string::npos || !name.ends_with(".bias")) continue;
      const at::Tensor channel = at::arange(item.value().numel());
      item.value().copy_(
          at::where(channel.remainder(3) == 0, at::full({}, -2.0), at::full({}, 2.0)));
    }
  }
};

class LayerAttentionGpu : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    test::be_exact_and_repeatable();
  }
  const at::Device gpu_{at::kCUDA, 0};
};

TEST_P(LayerAttentionGpu, PlainPassesAreThoseOfTheCpu) {
  AttentiveModel host(GetParam(), at::kCPU), device(GetParam(), gpu_);
  host.pass();
  device.pass();
  EXPECT_LT(test::relative_distance(device.logits.to(at::kCPU), host.logits), 1e-4);
  EXPECT_LT(test::relative_distance(device.gradient(), host.gradient()), 1e-3);
}

TEST_P(LayerAttentionGpu, PlainPassesAreCaptured) {
  AttentiveModel subject(GetParam(), gpu_);
  subject.pass();
  const at::Tensor eager = subject.gradient();
  test::expect_captured_bits([&] { subject.pass(); }, [&] { return subject.gradient(); }, eager);
}

// Steps of 2^-9 in each of some twenty layers; a softmax over layers with large logits makes more
// of them, so that plain operations in bfloat16 are the measure. Two roundings of one size differ.
TEST_P(LayerAttentionGpu, FusedPassesAreAsExactAsBfloat16Allows) {
  AttentiveModel truth(GetParam(), gpu_), fused(GetParam(), gpu_), plain(GetParam(), gpu_);
  fused.fuse();
  truth.pass();
  fused.pass();
  {
    const test::Bfloat16Autocast rounded(at::kCUDA);
    plain.pass();
  }
  const double error = test::relative_distance(fused.gradient(), truth.gradient());
  const double coarse = test::relative_distance(plain.gradient(), truth.gradient());
  std::cout << "relative error of the gradient: fused " << error << ", plain bfloat16 " << coarse
            << "\n";
  EXPECT_LT(error, std::max(0.05, 1.5 * coarse));
}

TEST_P(LayerAttentionGpu, FusedPassesAreCaptured) {
  AttentiveModel subject(GetParam(), gpu_);
  subject.fuse();
  subject.pass();
  const at::Tensor eager = subject.gradient();
  test::expect_captured_bits([&] { subject.pass(); }, [&] { return subject.gradient(); }, eager);
}

constexpr const char* kSmallNet = "image_size = 16";
constexpr const char* kSmallVit =
    "image_size = 32\npatch_size = 4\nembed_dim = 64\nnum_heads = 2\ndepth = 5";

INSTANTIATE_TEST_SUITE_P(
    Methods, LayerAttentionGpu,
    testing::Values(Setting{"resnet20", kSmallNet, "name = 'mrla_base'\ndrop_path = 0.0"},
                    Setting{"resnet20", kSmallNet, "name = 'mrla_light'\ndrop_path = 0.0"},
                    Setting{"resnet20", kSmallNet, "name = 'dla_base'\ndrop_path = 0.0"},
                    Setting{"resnet20", kSmallNet, "name = 'dla_light'\ndrop_path = 0.0"},
                    Setting{"resnet20", kSmallNet, "name = 'se'"},
                    Setting{"resnet20", kSmallNet, "name = 'eca'"},
                    Setting{"resnet20", kSmallNet, "name = 'cbam'"},
                    Setting{"resnet20", kSmallNet, "name = 'dianet'"},
                    Setting{"vit", kSmallVit, "name = 'mrla_base'"},
                    Setting{"vit", kSmallVit, "name = 'mrla_light'"},
                    Setting{"vit", kSmallVit, "name = 'dla_light'"}),
    [](const auto& setting) {
      const std::string method = setting.param.method;
      const std::size_t begin = method.find('\'') + 1;
      return cat(setting.param.model, "_", method.substr(begin, method.find('\'', begin) - begin));
    });

class WeightedSumGpu : public LayerAttentionGpu {};

// Sums of shared maps and their gradients, read by two sums, against the CPU in double.
TEST_P(WeightedSumGpu, IsThatOfTheCpu) {
  FusedContext context(gpu_);
  const auto run = [&](at::Device device, at::ScalarType type, bool fused) {
    ForwardState state;
    state.fused = fused ? &context : nullptr;
    const auto on = [&](const at::Tensor& tensor) { return tensor.to(device, type); };
    std::vector<at::Tensor> leaves;
    std::vector<SharedMap> maps;
    for (const at::Tensor& map : test::wavy_maps(3, 4, 64, 6)) {
      leaves.push_back(on(map).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_());
      maps.push_back(share_map(leaves.back()));
    }
    at::Tensor loss;
    for (const std::int64_t count : {2, 3}) {
      const at::Tensor weights = on(test::wavy_maps(1, 4, 2, 1)[0].view({4, 2, 1}))
                                     .to(type == at::kBFloat16 ? at::kFloat : type)
                                     .expand({4, 2, count})
                                     .clone()
                                     .requires_grad_();
      leaves.push_back(weights);
      const at::Tensor sum = weighted_sum(
          weights, {maps.begin(), maps.begin() + static_cast<std::ptrdiff_t>(count)}, state);
      const at::Tensor part = (sum.to(at::kDouble) * (1.0 + 0.5 * count)).square().sum();
      loss = loss.defined() ? loss + part : part;
    }
    loss.backward();
    std::vector<at::Tensor> flat;
    for (const at::Tensor& leaf : leaves) {
      flat.push_back(leaf.grad().to(at::kCPU, at::kDouble).contiguous().flatten());
    }
    return at::cat(flat);
  };
  const at::Tensor truth = run(at::kCPU, at::kDouble, false);
  EXPECT_LT(test::relative_distance(run(gpu_, at::kFloat, true), truth), 1e-5);
  EXPECT_LT(test::relative_distance(run(gpu_, at::kFloat, false), truth), 1e-5);
  EXPECT_LT(test::relative_distance(run(gpu_, at::kBFloat16, true), truth), 0.02);
}

INSTANTIATE_TEST_SUITE_P(One, WeightedSumGpu, testing::Values(Setting{}));

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
