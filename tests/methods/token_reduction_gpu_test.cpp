#include <functional>
#include <optional>

#include <gtest/gtest.h>

#include "tests/methods/reduction_support.h"
#include "tests/support/captured_passes.h"
#include "tests/support/fused_passes.h"
#include "tests/support/gpu.h"

// Token reduction beside merging, and masks of dilution, on a CUDA device: plain operations against
// the host's, operations within fused passes against plain ones, captured passes against eager
// ones.

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"

namespace ablate {
namespace {

const at::Device kReductionGpu(at::kCUDA, 0);

struct ReductionCase {
  std::string name;
  std::string method;              ///< TOML table; empty: a mask of dilution
  GainMask mask = GainMask::None;  ///< in block 1
  bool same_tokens = true;         ///< whether bfloat16 cannot change who goes
};

std::ostream& operator<<(std::ostream& out, const ReductionCase& c) { return out << c.name; }

/// A model under training with one batch.
class ReducedModel {
 public:
  ReducedModel(const ReductionCase& c, at::Device device, at::ScalarType type)
      : model_(test::make_model("vit",
                                "image_size = 32\npatch_size = 4\nembed_dim = 96\ndepth = 3\n"
                                "num_heads = 3\n",
                                20)) {
    model_->initialize(5);
    MethodContext context(*model_);
    if (c.method.empty()) {
      context.surgeon().apply(MarkRetiring{1});
      context.surgeon().apply(SetGains{1, 1.6, 0.4, c.mask});
    } else {
      test::apply_method(context, c.method);
    }
    const at::NoGradGuard no_grad;
    for (auto& item : model_->named_parameters()) {
      if (item.key().find("qkv.weight") != std::string::npos) item.value().mul_(5.0);
    }
    model_->to(device, type);
    model_->train();
    images_ = test::wavy_images(6, 32, type).to(device);
    upstream_ = at::arange(120, at::kDouble).cos().view({6, 20}).to(images_.options());
    for (const at::Tensor& parameter : model_->parameters()) {
      gradients_.push_back(at::zeros_like(parameter));
      at::Tensor(parameter).mutable_grad() = gradients_.back();
    }
  }

  void bind() {
    fused_.emplace(kReductionGpu);
    test::bind_parameters(*fused_, *model_);
  }

  /// Adds to the gradients; with fused operations behind bind().
  void pass() {
    ForwardState state;
    state.seed = 3;
    state.step = 5;
    if (images_.is_cuda()) state.device_step = step_;
    if (fused_) {
      state.fused = &*fused_;
    }
    const at::Tensor logits = model_->forward(images_, state).to(upstream_.scalar_type());
    at::Tensor loss = (logits * upstream_).sum();
    for (const at::Tensor& more : state.reducer_losses) loss = loss + more.to(loss.scalar_type());
    loss.backward();
  }

  void clear() {
    for (at::Tensor& gradient : gradients_) gradient.zero_();
  }
  at::Tensor gradient() const {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& gradient : gradients_) flat.push_back(gradient.flatten());
    return at::cat(flat);
  }
  at::Tensor gradient_of_a_pass() {
    clear();
    pass();
    return gradient();
  }

 private:
  using MethodContext = test::MethodContext;
  std::shared_ptr<Model> model_;
  at::Tensor images_, upstream_;
  std::vector<at::Tensor> gradients_;
  std::optional<FusedContext> fused_;
  at::Tensor step_ = at::full({}, 5, at::TensorOptions().dtype(at::kLong).device(kReductionGpu));
};

class TokenReductionGpu : public testing::TestWithParam<ReductionCase> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setAllowTF32CuBLAS(false);
  }
};

double relative(const at::Tensor& value, const at::Tensor& truth) {
  return ((value - truth).norm() / truth.norm()).item<double>();
}

TEST_P(TokenReductionGpu, PlainPassesComputeWhatTheHostDoes) {
  ReducedModel host(GetParam(), at::kCPU, at::kDouble);
  ReducedModel device(GetParam(), kReductionGpu, at::kDouble);
  EXPECT_LT(relative(device.gradient_of_a_pass().cpu(), host.gradient_of_a_pass()), 1e-9);
}

TEST_P(TokenReductionGpu, FusedPassesComputeWhatPlainOnesDo) {
  ReducedModel plain(GetParam(), kReductionGpu, at::kFloat);
  ReducedModel fused(GetParam(), kReductionGpu, at::kFloat);
  fused.bind();
  const at::Tensor truth = plain.gradient_of_a_pass();
  const double distance = relative(fused.gradient_of_a_pass(), truth);
  std::cout << "relative distance of gradients: " << distance << "\n";
  EXPECT_LT(distance, GetParam().same_tokens ? 0.03 : 0.5);
}

TEST_P(TokenReductionGpu, CapturedPassesHaveTheBitsOfEagerOnes) {
  for (const bool fused : {false, true}) {
    ReducedModel subject(GetParam(), kReductionGpu, at::kFloat);
    if (fused) subject.bind();
    const at::Tensor eager = subject.gradient_of_a_pass().clone();
    EXPECT_GT(eager.norm().item<double>(), 0.0);
    test::expect_captured_bits(
        [&] {
          subject.clear();
          subject.pass();
        },
        [&] { return subject.gradient(); }, eager);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Methods, TokenReductionGpu,
    testing::Values(
        ReductionCase{"random_pruning", "name = 'random_pruning'\nkeep = 0.6"},
        ReductionCase{"evit", "name = 'evit'\nkeep = 0.6\nblocks = [1]", GainMask::None, false},
        ReductionCase{"diffrate", "name = 'diffrate'\nprune = [60, 50, 40]\nmerge = [55, 45, 30]",
                      GainMask::None, false},
        ReductionCase{"dynamic_vit", "name = 'dynamic_vit'\nkeep = 0.6", GainMask::None, false},
        ReductionCase{"tome_prune", "name = 'tome'\nr = 9\noperation = 'prune'", GainMask::None,
                      false},
        ReductionCase{"tome_random", "name = 'tome'\nr = 9\nmetric = 'random'"},
        ReductionCase{"mask_element", "", GainMask::Element},
        ReductionCase{"mask_token", "", GainMask::Token},
        ReductionCase{"mask_channel", "", GainMask::Channel},
        ReductionCase{"mask_sample", "", GainMask::Sample}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
