#include "methods/models/padded_heads.h"

#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "tests/models/channel_support.h"
#include "tests/support/captured_passes.h"
#include "tests/support/fused_passes.h"
#include "tests/support/gpu.h"

#if ABLATE_HAS_CUDA
#include "methods/models/fused/context.h"
#endif

namespace ablate {
namespace {

using ops::AttentionHeads;

at::Tensor wave(at::IntArrayRef shape, double step) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return (at::arange(count, at::kDouble) * step).sin().view(shape);
}

// Zeros change neither products of queries and keys nor, when the factor makes up for the scale of
// the padded width, softmax; outputs of padded values are zeros.
TEST(PaddedHeads, HaveTheAttentionOfTheOthers) {
  for (const AttentionHeads& heads :
       {AttentionHeads{3, 5, 7, 8}, AttentionHeads{2, 4, 4, 16}, AttentionHeads{1, 6, 2, 6}}) {
    const std::int64_t width = 8;
    const AttentionHeads uniform{heads.count, width, width, width};
    const double factor =
        std::sqrt(static_cast<double>(width) / static_cast<double>(heads.scale_width));
    at::Tensor direct = wave({2, 9, 2 * heads.queries() + heads.values()}, 0.37).requires_grad_();
    at::Tensor padded = direct.detach().clone().requires_grad_();
    ForwardState state;
    const at::Tensor expected = ops::attention(direct, heads, {}, state);
    const at::Tensor found = ops::unpad_values(
        ops::attention(ops::pad_heads(padded, heads, width, factor), uniform, {}, state), heads,
        width);
    EXPECT_LT(test::largest_difference(found, expected), 1e-14);
    const at::Tensor upstream = wave(expected.sizes(), 0.11);
    (expected * upstream).sum().backward();
    (found * upstream).sum().backward();
    EXPECT_LT(test::largest_difference(padded.grad(), direct.grad()), 1e-14);
  }
}

#if ABLATE_HAS_CUDA

/// A ViT after a cut, with one batch of images, on the GPU.
struct CutVit {
  explicit CutVit(bool gates) {
    model = test::make_model("vit",
                             "image_size = 32\npatch_size = 4\nembed_dim = 192\ndepth = 2\n"
                             "num_heads = 3",
                             16);
    model->initialize(5);
    Surgeon surgeon(*model);
    for (int block = 0; block < 2; ++block) {
      surgeon.apply(AttachReweight{block, "v", "dynamic", 16});
    }
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      if (item.key().find("reweight") != std::string::npos) {
        item.value().copy_(wave(item.value().sizes(), 0.7) * 0.2);
      }
    }
    if (gates) {
      // All groups of both blocks; every third channel is closed.
      std::vector<ChannelSeat> seats;
      for (int block = 0; block < 2; ++block) {
        for (const char* group : {"qk", "v", "mlp"}) seats.push_back({{{block, group}}});
      }
      surgeon.apply(AttachGates{seats, {}});
      for (std::size_t i = 0; i < seats.size(); ++i) {
        const at::Tensor scores = model->channel_gates()->scores(i);
        const at::Tensor closed = at::arange(scores.size(1)).remainder(3) == 1;
        scores.copy_(at::where(closed, 0.3, 1.0).expand_as(scores));
      }
    } else {
      // 40 and 24 of 64: wider and narrower than 32.
      surgeon.apply(KeepChannels{0, "qk", test::some_channels(3, 64, 40, 1)});
      surgeon.apply(KeepChannels{0, "v", test::some_channels(3, 64, 24, 2)});
      surgeon.apply(KeepChannels{1, "qk", test::some_channels(3, 64, 24, 3)});
      surgeon.apply(KeepChannels{1, "v", test::some_channels(3, 64, 32, 4)});
      surgeon.apply(KeepChannels{0, "mlp", test::some_channels(1, 768, 520, 5)});
    }
    images = test::wavy_images(4, 32);
    upstream = wave({4, 16}, 0.9).to(at::kFloat);
  }

  void move(at::Device device) {
    model->to(device);
    images = images.to(device);
    upstream = upstream.to(device);
    gradients.clear();
    for (at::Tensor& parameter : model->parameters()) {
      gradients.push_back(at::zeros_like(parameter).detach());
      parameter.mutable_grad() = gradients.back();
    }
  }
  void fuse() {
    context.emplace(images.device());
    test::bind_parameters(*context, *model);
  }
  void run() {
    for (at::Tensor& gradient : gradients) gradient.zero_();
    ForwardState state;
    if (context) {
      state.fused = &*context;
    }
    logits = model->forward(images, state).to(at::kFloat);
    (logits * upstream).sum().backward();
    logits = logits.detach();
    // As its method does: they hold the graph of this pass, and with it the pass's stream.
    if (model->channel_gates()) static_cast<void>(model->channel_gates()->take_counts());
  }
  at::Tensor flat() const { return test::flat_of(gradients); }

  std::shared_ptr<Model> model;
  at::Tensor images, upstream, logits;
  std::vector<at::Tensor> gradients;
  std::optional<FusedContext> context;
};

class PrunedPassesGpu : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setAllowTF32CuBLAS(false);
  }
};

TEST_P(PrunedPassesGpu, FollowTheCpu) {
  CutVit host(GetParam()), plain(GetParam()), fused(GetParam());
  host.move(at::kCPU);
  host.run();
  plain.move(at::Device(at::kCUDA, 0));
  plain.run();
  fused.move(at::Device(at::kCUDA, 0));
  fused.fuse();
  fused.run();
  std::cout << "gradients differ by " << test::relative_distance(plain.flat(), host.flat())
            << " (plain), " << test::relative_distance(fused.flat(), host.flat()) << " (fused)\n";
  EXPECT_LT(test::relative_distance(plain.logits, host.logits), 1e-4);
  EXPECT_LT(test::relative_distance(plain.flat(), host.flat()), 1e-4);
  EXPECT_LT(test::relative_distance(fused.logits, host.logits), 0.02);
  EXPECT_LT(test::relative_distance(fused.flat(), host.flat()), 0.03);
}

TEST_P(PrunedPassesGpu, AreCapturedWithTheBitsOfEagerOnes) {
  for (const bool fused : {false, true}) {
    CutVit subject(GetParam());
    subject.move(at::Device(at::kCUDA, 0));
    if (fused) subject.fuse();
    subject.run();
    const at::Tensor eager = subject.flat().clone();
    EXPECT_GT(eager.norm().item<double>(), 0.0);
    test::expect_captured_bits([&] { subject.run(); }, [&] { return subject.flat(); }, eager);
  }
}

INSTANTIATE_TEST_SUITE_P(CutAndGated, PrunedPassesGpu, testing::Bool(),
                         [](const auto& gated) { return gated.param ? "under_gates" : "cut"; });

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate
