#include <optional>

#include <gtest/gtest.h>

#include "methods/models/ops.h"
#include "tests/support/captured_passes.h"
#include "tests/support/fused_passes.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"

// Hierarchical transformers and linear attention on a GPU: plain operations against the CPU, fused
// passes against plain ones, captured passes against eager ones.

namespace ablate {
namespace {

const at::Device kStagedGpu(at::kCUDA, 0);

struct StagedCase {
  const char *name, *model, *settings;
};

/// Heads as wide as fused attention wants them, every kind of attention and entry.
constexpr StagedCase kStagedCases[] = {
    {"swin", "swin",
     "image_size = 32\npatch_size = 2\nembed_dims = [64, 128]\ndepths = [2, 2]\n"
     "num_heads = [2, 4]\nattention = 'SS'\nwindow = 4\n"},
    {"flatten_swin", "flatten_swin_micro_a_patch2_32", ""},
    {"pvt", "pvt",
     "image_size = 32\npatch_size = 2\nembed_dims = [64, 128]\ndepths = [1, 1]\nnum_heads = [1, "
     "2]\n"
     "mlp_ratios = [2, 2]\nreductions = [4, 1]\nattention = 'SS'\n"},
    {"flatten_pvt", "pvt",
     "image_size = 32\npatch_size = 2\nembed_dims = [64, 128]\ndepths = [1, 1]\nnum_heads = [1, "
     "2]\n"
     "mlp_ratios = [2, 2]\nreductions = [1, 1]\nattention = 'LL'\nclass_token = false\n"},
    {"cswin", "cswin",
     "image_size = 32\npatch_size = 2\nembed_dims = [64, 128]\ndepths = [1, 1]\nnum_heads = [2, "
     "4]\n"
     "stripes = [2, 8]\nattention = 'SS'\n"},
    {"flatten_cswin", "cswin",
     "image_size = 32\npatch_size = 2\nembed_dims = [64, 128]\ndepths = [1, 1]\nnum_heads = [2, "
     "4]\n"
     "stripes = [2, 8]\nattention = 'LL'\n"},
    {"flatten_vit", "flatten_vit",
     "image_size = 32\npatch_size = 4\nembed_dim = 128\nnum_heads = 4\ndepth = 2\n"},
};

class StagedPass {
 public:
  explicit StagedPass(const StagedCase& subject, at::Device device = kStagedGpu)
      : model(test::make_model(subject.model, subject.settings, 16)) {
    model->initialize(5);
    spread_parameters();
    images = test::wavy_images(4, model->image_size()).to(device);
    upstream = test::wavy_images(4, 4).flatten(1).narrow(1, 0, 16).contiguous().to(device);
    model->to(device);
    for (const at::Tensor& parameter : model->parameters()) {
      gradients.push_back(at::zeros_like(parameter));
      at::Tensor(parameter).mutable_grad() = gradients.back();
    }
  }

  /// Clears the gradients and computes those of sum(logits * upstream).
  void run() {
    for (at::Tensor& gradient : gradients) gradient.zero_();
    ForwardState state;
    if (context) {
      state.fused = &*context;
    }
    logits = model->forward(images, state).to(at::kFloat);
    (logits * upstream).sum().backward();
    logits = logits.detach();
  }
  /// Fused and plain operations write to the same gradients from now on.
  void fuse() {
    context.emplace(kStagedGpu);
    test::bind_parameters(*context, *model);
  }
  at::Tensor flat() const { return test::flat_of(gradients); }

  std::shared_ptr<Model> model;
  at::Tensor images, upstream, logits;
  std::vector<at::Tensor> gradients;
  std::optional<FusedContext> context;

 private:
  /// Positions, scales and biases that are not 0, so that mistakes in them show.
  void spread_parameters() const {
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) {
      if (parameter.abs().max().item<double>() > 0) continue;
      parameter.copy_(at::arange(parameter.numel()).mul(0.7).sin().mul(0.2).view_as(parameter));
    }
  }
};

class FusedStagesGpu : public testing::TestWithParam<StagedCase> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    test::be_exact_and_repeatable();
  }
};

TEST_P(FusedStagesGpu, PlainPassesAreThoseOfTheCpu) {
  StagedPass device(GetParam()), host(GetParam(), at::kCPU);
  device.run();
  host.run();
  EXPECT_LT(test::relative_distance(device.logits, host.logits), 1e-4);
  EXPECT_LT(test::relative_distance(device.flat(), host.flat()), 1e-4);
}

TEST_P(FusedStagesGpu, FusedPassesAreNearPlainOnes) {
  StagedPass plain(GetParam()), fused(GetParam());
  plain.run();
  fused.fuse();
  fused.run();
  std::cout << "relative distance: logits " << test::relative_distance(fused.logits, plain.logits)
            << ", gradient " << test::relative_distance(fused.flat(), plain.flat()) << "\n";
  EXPECT_LT(test::relative_distance(fused.logits, plain.logits), 0.03);
  EXPECT_LT(test::relative_distance(fused.flat(), plain.flat()), 0.05);
  // The last convolution of a model with a class token ends in tokens that nobody reads.
  test::expect_gradients_in_the_same_places(*plain.model, fused.gradients, plain.gradients);
}

TEST_P(FusedStagesGpu, CapturedPassesRepeatTheBitsOfEagerOnes) {
  for (const bool fused : {false, true}) {
    StagedPass pass(GetParam());
    if (fused) pass.fuse();
    pass.run();
    const at::Tensor eager = pass.flat().clone();
    test::expect_captured_bits([&] { pass.run(); }, [&] { return pass.flat(); }, eager);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FusedStagesGpu, testing::ValuesIn(kStagedCases),
                         [](const auto& subject) { return std::string(subject.param.name); });

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
