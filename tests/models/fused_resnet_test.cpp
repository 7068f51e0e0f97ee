#include <cmath>
#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "methods/models/batch_norm.h"
#include "methods/models/ops.h"
#include "runner/core/text.h"
#include "tests/support/captured_passes.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"
#include "methods/models/fused/norms.h"

namespace ablate {
namespace {

const at::Device kGpu(at::kCUDA, 0);

/// A network with one batch of images, and everything that fused passes need.
struct FusedResNet {
  struct Setting {
    const char *name, *settings;
    std::int64_t batch, bn_group;
  };

  FusedResNet(std::shared_ptr<Model> network, at::Tensor inputs, at::Tensor gradient)
      : model(std::move(network)), images(std::move(inputs)), upstream(std::move(gradient)) {}
  explicit FusedResNet(const Setting& setting)
      : model(test::make_model(setting.name, setting.settings, 16, setting.bn_group)) {
    model->initialize(5);
    settle_gates();
    model->to(kGpu);
    const std::int64_t side = model->image_size();
    images = scattered({setting.batch, 3, side, side}).to(kGpu);
    upstream = scattered({setting.batch, 16}).to(kGpu);
  }

  /// Values in (-1, 1) without a pattern.
  static at::Tensor scattered(at::IntArrayRef sizes) {
    std::int64_t count = 1;
    for (const std::int64_t size : sizes) count *= size;
    const at::Tensor k = at::arange(count, at::kDouble);
    return ((12.9898 * k + 1).sin() * 43758.5453).frac().view(sizes).to(at::kFloat);
  }
  /// Shifts that open or close each channel's ReLU for good, but for the first: a gate near its
  /// threshold opens by rounding, and a gradient that passes or does not is no rounding error.
  void settle_gates() const {
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      const std::string& name = item.key();
      if (!name.ends_with(".bias") || name == "bn1.bias" || name == "fc.bias") continue;
      const at::Tensor channel = at::arange(item.value().numel());
      item.value().copy_(
          at::where(channel.remainder(3) == 0, at::full({}, -6.0), at::full({}, 6.0)));
    }
  }

  /// Gradients of sum(logits * upstream) in single precision or in bfloat16, by plain operations.
  at::Tensor plain_gradient(at::ScalarType type) {
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
    model->to(type);
    ForwardState state;
    const at::Tensor logits = model->forward(images.to(type), state);
    (logits.to(at::kFloat) * upstream).sum().backward();
    std::vector<at::Tensor> flat;
    for (const at::Tensor& parameter : model->parameters()) {
      flat.push_back(parameter.grad().to(at::kFloat).flatten());
    }
    return at::cat(flat);
  }

  void bind() {
    context.emplace(kGpu);
    norms.emplace(*model, images.size(0));
    gradients.clear();
    for (const at::Tensor& parameter : model->parameters()) {
      gradients.push_back(at::zeros(parameter.sizes(), parameter.options()));
      context->bind(parameter, {.working = parameter.detach().to(at::kBFloat16),
                                .gradient = gradients.back()});
    }
  }
  /// Adds to the gradients.
  void pass() {
    ForwardState state;
    state.fused = &*context;
    state.norm_shares = &norms->parts();
    norms->begin_step();
    (model->forward(images, state).to(at::kFloat) * upstream).sum().backward();
    norms->commit(nullptr);
  }
  at::Tensor fused_gradient() {
    bind();
    pass();
    return flat_gradients();
  }
  at::Tensor flat_gradients() const {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& gradient : gradients) flat.push_back(gradient.flatten());
    return at::cat(flat);
  }

  std::shared_ptr<Model> model;
  at::Tensor images, upstream;
  std::optional<FusedContext> context;
  std::optional<DeviceNorms> norms;
  std::vector<at::Tensor> gradients;
};

double relative(const at::Tensor& value, const at::Tensor& truth) {
  return ((value - truth).norm() / truth.norm()).item<double>();
}

class FusedResNetGpu : public testing::TestWithParam<FusedResNet::Setting> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
};

class FusedBlockGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  }
};

TEST_P(FusedResNetGpu, GradientsAreNearerToSinglePrecisionThanPlainBfloat16) {
  const at::Tensor truth = FusedResNet(GetParam()).plain_gradient(at::kFloat);
  const at::Tensor coarse = FusedResNet(GetParam()).plain_gradient(at::kBFloat16);
  FusedResNet subject(GetParam());
  const at::Tensor fused = subject.fused_gradient();
  std::cout << "relative error of the gradient: fused " << relative(fused, truth)
            << ", plain bfloat16 " << relative(coarse, truth) << "\n";
  EXPECT_LT(relative(fused, truth), 0.01);
  EXPECT_LT(relative(fused, truth), relative(coarse, truth));
}

TEST_P(FusedResNetGpu, TracksTheStatisticsOfTheGroups) {
  FusedResNet fused(GetParam()), plain(GetParam());
  fused.fused_gradient();
  plain.plain_gradient(at::kFloat);
  synchronize_running_statistics(*plain.model, *make_self_communicator());
  const auto expected = plain.model->named_buffers(), found = fused.model->named_buffers();
  for (const auto& item : expected) {
    const at::Tensor &value = found[item.key()], &truth = item.value();
    if (item.key().ends_with("num_batches_tracked")) {
      EXPECT_EQ(value.item<std::int64_t>(), truth.item<std::int64_t>()) << item.key();
    } else {
      EXPECT_LT(relative(value, truth), 0.03) << item.key();
    }
  }
}

TEST_P(FusedResNetGpu, CapturedPassesHaveTheBitsOfEagerOnes) {
  FusedResNet subject(GetParam());
  const at::Tensor eager = subject.fused_gradient().clone();
  test::expect_captured_bits(
      [&] {
        for (const at::Tensor& gradient : subject.gradients) gradient.zero_();
        subject.pass();
      },
      [&] { return subject.flat_gradients(); }, eager);
}

TEST_P(FusedResNetGpu, EvaluatesAsPlainOperationsDo) {
  FusedResNet subject(GetParam());
  subject.fused_gradient();  // statistics other than at birth
  subject.model->eval();
  const at::NoGradGuard no_grad;
  FusedContext context(kGpu);
  context.bind_for_inference(*subject.model);
  ForwardState state;
  state.fused = &context;
  const at::Tensor logits = subject.model->forward(subject.images, state).to(at::kFloat);
  EXPECT_LT(relative(logits, test::logits_of(*subject.model, subject.images)), 0.03);
}

/// A stem and two blocks with everything that a residual network has: kernels of one, three and
/// seven pixels, strides, a pooled map, both kinds of shortcut, outputs with one and two readers.
class SmallResNet final : public Model {
 public:
  SmallResNet() {
    add("stem", 3, 64, 7, 2);
    add("a1", 64, 32, 1, 1);
    add("a2", 32, 32, 3, 2);
    add("a3", 32, 96, 1, 1);
    add("side", 64, 96, 1, 2);
    add("b1", 96, 96, 3, 1);
  }
  at::Tensor forward(const at::Tensor& images, ForwardState& state) override {
    const auto conv = [&](const char* name, const at::Tensor& x) {
      return ops::conv2d(x, *convs_.at(name), state);
    };
    const auto relu = [&](const char* name, const at::Tensor& x) {
      return ops::batch_norm_relu(x, *norms_.at(name), state);
    };
    ops::Fork x = ops::batch_norm_relu_pool(ops::conv2d_images(images, *convs_.at("stem"), state),
                                            *norms_.at("stem"), state);
    const at::Tensor y = relu("a2", conv("a2", relu("a1", conv("a1", x.main))));
    x = ops::batch_norm_add_relu(conv("a3", y), *norms_.at("a3"),
                                 {conv("side", x.shortcut), norms_.at("side").get()}, state);
    x = ops::batch_norm_add_relu(conv("b1", x.main), *norms_.at("b1"), {x.shortcut}, state);
    return x.main.flatten(1);
  }
  at::Tensor forward_features(const at::Tensor& images, ForwardState& state) override {
    return forward(images, state);
  }
  std::vector<std::string> head_names() const override { return {}; }
  std::int64_t image_size() const override { return 32; }
  /// Shifts open or close gates, so that rounding does not move them.
  void initialize(std::uint64_t) override {
    const at::NoGradGuard no_grad;
    for (auto& item : named_parameters()) {
      at::Tensor& value = item.value();
      const at::Tensor noise = FusedResNet::scattered(value.sizes());
      const at::Tensor channel = at::arange(value.size(0));
      if (value.dim() == 4) {
        value.copy_(noise * std::sqrt(3.0 / static_cast<double>(value[0].numel())));
      } else if (item.key().ends_with("weight")) {
        value.copy_(1.0 + 0.5 * noise);
      } else {
        value.copy_(at::where(channel.remainder(3) == 0, at::full({}, -8.0), at::full({}, 8.0)));
      }
    }
  }

 private:
  void add(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel,
           std::int64_t stride) {
    convs_[name] =
        register_module(name, std::make_shared<Conv2d>(in, out, kernel, stride, kernel / 2, false));
    norms_[name] = register_module(name + "_norm", std::make_shared<GroupBatchNorm2d>(out, 4));
  }

  std::map<std::string, std::shared_ptr<Conv2d>> convs_;
  std::map<std::string, std::shared_ptr<GroupBatchNorm2d>> norms_;
};

FusedResNet small_subject() {
  auto model = std::make_shared<SmallResNet>();
  model->initialize(0);
  model->to(kGpu);
  return {std::move(model), FusedResNet::scattered({8, 3, 32, 32}).to(kGpu),
          FusedResNet::scattered({8, 96 * 4 * 4}).to(kGpu)};
}

// Batch norm takes most of a gradient away and leaves a difference, so that bfloat16 costs some
// tensors a quarter of theirs: what plain operations lose is the measure. A path that is missing
// loses more.
TEST_F(FusedBlockGpu, NoGradientLosesMoreThanPlainBfloat16) {
  const at::Tensor truth = small_subject().plain_gradient(at::kFloat);
  const at::Tensor coarse = small_subject().plain_gradient(at::kBFloat16);
  FusedResNet fused = small_subject();
  fused.fused_gradient();
  std::int64_t offset = 0;
  const auto names = fused.model->named_parameters();
  for (std::size_t i = 0; i < fused.gradients.size(); ++i) {
    const at::Tensor found = fused.gradients[i].flatten();
    const at::Tensor expected = truth.narrow(0, offset, found.numel());
    const double size = expected.norm().item<double>(),
                 loss = (found - expected).norm().item<double>(),
                 plain = (coarse.narrow(0, offset, found.numel()) - expected).norm().item<double>();
    offset += found.numel();
    std::cout << names[i].key() << ": gradient " << size << ", error " << loss
              << ", of plain bfloat16 " << plain << "\n";
    EXPECT_LE(loss, 1.5 * plain + 0.01 * size) << names[i].key();
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedResNetGpu,
                         testing::Values(FusedResNet::Setting{"resnet20", "", 16, 8},
                                         FusedResNet::Setting{"resnet20", "image_size = 20", 6, 2},
                                         FusedResNet::Setting{"resnet18", "image_size = 65", 8, 0},
                                         FusedResNet::Setting{"resnet50", "image_size = 96", 16,
                                                              0}));

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
