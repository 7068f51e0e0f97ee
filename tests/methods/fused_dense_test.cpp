#include <algorithm>
#include <optional>

#include <gtest/gtest.h>

#include "tests/support/captured_passes.h"
#include "tests/support/fused_passes.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "methods/models/edit.h"
#include "methods/models/fused/context.h"
#include "methods/models/fused/norms.h"

// Dense models on a GPU: plain passes against the CPU, fused ones against plain ones, captured ones
// against eager ones.

namespace ablate {
namespace {

const at::Device kDenseGpu(at::kCUDA, 0);

struct FusedDenseCase {
  const char *name, *model, *settings;
  bool merges = false;
};

constexpr const char* kHeads32 =
    "image_size = 64\npatch_size = 8\nembed_dim = 64\nnum_heads = 2\ndepth = 4\n";

/// Widths that fused operations take, every neck and head.
constexpr FusedDenseCase kFusedDense[] = {
    {"upernet", "upernet_vit", "channels = 32\npool_scales = [1, 2, 3]\nauxiliary_channels = 16\n"},
    {"upernet_pyramid", "upernet_vit",
     "channels = 32\npool_scales = [1, 2]\nauxiliary_channels = 16\nneck = 'pyramid'\n"},
    {"upernet_multilevel", "upernet_vit",
     "channels = 32\npool_scales = [1, 2]\nauxiliary_channels = 16\nneck = 'multilevel'\n"
     "final_norm = true\n"},
    {"upernet_tome", "upernet_vit",
     "channels = 32\npool_scales = [1, 2]\nauxiliary_channels = 16\n", true},
    {"linear", "linear_vit", ""},
    {"segmenter", "segmenter_vit", "decoder_head_dim = 32\n"},
};

class DensePass {
 public:
  explicit DensePass(const FusedDenseCase& subject, at::Device device = kDenseGpu)
      : model(test::make_model(subject.model, cat(kHeads32, dropout(subject), subject.settings),
                               16)) {
    model->initialize(5);
    settle_gates();
    if (subject.merges) {
      Surgeon(*model).apply(InsertReducer{1, "tome", Value::Table{{"r", std::int64_t{12}}}});
    }
    images = test::wavy_images(4, 64).to(device);
    model->to(device);
    for (const at::Tensor& parameter : model->parameters()) {
      gradients.push_back(at::zeros_like(parameter));
      at::Tensor(parameter).mutable_grad() = gradients.back();
    }
    if (device.is_cuda()) norms.emplace(*model, images.size(0));
  }

  /// Clears the gradients and computes those of fixed mixtures of all scores.
  void run() {
    for (at::Tensor& gradient : gradients) gradient.zero_();
    ForwardState state;
    if (norms) {
      state.norm_shares = &norms->parts();
      norms->begin_step();
    }
    if (context) {
      state.fused = &*context;
    }
    logits = model->forward(images, state).to(at::kFloat);
    at::Tensor loss = mixture(logits);
    if (state.auxiliary_logits.defined()) {
      loss = loss + 0.4 * mixture(state.auxiliary_logits.to(at::kFloat));
    }
    loss.backward();
    logits = logits.detach();
  }
  void fuse() {
    context.emplace(kDenseGpu);
    test::bind_parameters(*context, *model);
  }
  at::Tensor flat() const { return test::flat_of(gradients); }

  std::shared_ptr<Model> model;
  at::Tensor images, logits;
  std::vector<at::Tensor> gradients;
  std::optional<DeviceNorms> norms;
  std::optional<FusedContext> context;

 private:
  static std::string dropout(const FusedDenseCase& subject) {
    return std::string_view(subject.model).starts_with("upernet") ? "dropout = 0.0\n" : "";
  }
  static at::Tensor mixture(const at::Tensor& scores) {
    return (scores * at::arange(scores.numel(), scores.options()).mul(0.7).sin().view_as(scores))
        .sum();
  }
  /// Shifts that open or close each channel's ReLU for good: a gate near its threshold opens by
  /// rounding.
  void settle_gates() const {
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      if (!item.key().ends_with(".bn.bias")) continue;
      const at::Tensor channel = at::arange(item.value().numel());
      item.value().copy_(
          at::where(channel.remainder(3) == 0, at::full({}, -6.0), at::full({}, 6.0)));
    }
  }
};

class FusedDenseGpu : public testing::TestWithParam<FusedDenseCase> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    test::be_exact_and_repeatable();
  }
};

TEST_P(FusedDenseGpu, PlainPassesAreThoseOfTheCpu) {
  DensePass device(GetParam()), host(GetParam(), at::kCPU);
  device.run();
  host.run();
  EXPECT_LT(test::relative_distance(device.logits, host.logits), 1e-3);
  EXPECT_LT(test::relative_distance(device.flat(), host.flat()), 1e-3);
}

// Plain operations in bfloat16 are the measure; two roundings of one size differ. Merging may
// choose other pairs where keys are rounded, so only the others are compared.
TEST_P(FusedDenseGpu, FusedPassesAreNearPlainOnes) {
  DensePass plain(GetParam()), fused(GetParam()), rounded(GetParam());
  plain.run();
  fused.fuse();
  fused.run();
  {
    const test::Bfloat16Autocast in_bfloat16(at::kCUDA);
    rounded.run();
  }
  const double coarse = test::relative_distance(rounded.flat(), plain.flat());
  std::cout << "relative distance: logits " << test::relative_distance(fused.logits, plain.logits)
            << ", gradient " << test::relative_distance(fused.flat(), plain.flat())
            << "; plain bfloat16: logits " << test::relative_distance(rounded.logits, plain.logits)
            << ", gradient " << coarse << "\n";
  EXPECT_TRUE(fused.flat().isfinite().all().item<bool>());
  if (!GetParam().merges) {
    EXPECT_LT(test::relative_distance(fused.logits, plain.logits), 0.05);
    EXPECT_LT(test::relative_distance(fused.flat(), plain.flat()), std::max(0.05, 1.5 * coarse));
  }
  test::expect_gradients_in_the_same_places(*plain.model, fused.gradients, plain.gradients);
}

TEST_P(FusedDenseGpu, CapturedPassesRepeatTheBitsOfEagerOnes) {
  for (const bool fused : {false, true}) {
    DensePass pass(GetParam());
    if (fused) pass.fuse();
    pass.run();
    const at::Tensor eager = pass.flat().clone();
    test::expect_captured_bits([&] { pass.run(); }, [&] { return pass.flat(); }, eager);
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, FusedDenseGpu, testing::ValuesIn(kFusedDense),
                         [](const auto& subject) { return std::string(subject.param.name); });

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
