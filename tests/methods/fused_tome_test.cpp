#include <cmath>

#include <gtest/gtest.h>

#include "methods/token_merging.h"
#include "tests/methods/tome_support.h"
#include "tests/support/captured_passes.h"
#include "tests/support/gpu.h"

// Token merging on a CUDA device, in its fused and its plain form.

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"
#include "methods/models/fused/tokens.h"
#include "runner/core/random.h"

namespace ablate {
namespace {

const at::Device kGpu(at::kCUDA, 0);

void skip_without_gpu() {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  at::globalContext().setAllowTF32CuBLAS(false);
}

at::Tensor normal_numbers(std::uint64_t key, at::IntArrayRef shape) {
  RandomStream random(key, Purpose::Test);
  at::Tensor values = at::empty(shape, at::kDouble);
  double* data = values.data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) data[i] = random.normal();
  return values;
}

/// Merges tokens that the test chose, whatever keys there are: what remains when fused and plain
/// passes are compared is arithmetic.
class ChosenReducer final : public TokenReducer {
 public:
  explicit ChosenReducer(std::int64_t r) : r_(r) {}
  void begin(ForwardState& state) override { state.proportional_attention = true; }
  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const std::int64_t batch = stream.base.size(0), tokens = stream.base.size(1);
    MergePlan plan =
        match_tokens(normal_numbers(static_cast<std::uint64_t>(tokens), {batch, tokens, 8}), r_,
                     state.protected_tokens);
    plan.positions = plan.positions.to(kGpu);
    if (state.fused) {
      plan.groups = fused::group_tokens(plan.positions, plan.left, state.token_sizes);
    }
    return merge_stream(plan, stream, state);
  }
  KeyNeed key_need() const override { return KeyNeed::None; }

 private:
  std::int64_t r_;
};

std::shared_ptr<TokenReducer> make_chosen(Params& params) {
  return std::make_shared<ChosenReducer>(params.required_integer("r", 1, 100, "tokens merged"));
}
const Registry<TokenReducerInfo>::Add added_chosen{{.name = "chosen", .make = make_chosen}};

/// A model with one batch of images, and what fused passes need.
struct FusedTome {
  struct Setting {
    std::string model;    ///< settings of the ViT
    std::string methods;  ///< of tome
    int removed = -1;     ///< block without attention
    std::int64_t r = 5;   ///< tokens that the test merges in each block
  };

  explicit FusedTome(const Setting& setting, bool chosen = false)
      : setting_(setting), model(test::make_model("vit", setting.model, 20)) {
    model->initialize(5);
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      // Queries and keys of variance 1: attention that looks at something.
      if (item.key().find("qkv.weight") == std::string::npos) continue;
      item.value().mul_(50.0 / std::sqrt(static_cast<double>(item.value().size(1))));
    }
    test::MethodContext methods(*model);
    if (setting.removed >= 0) test::remove_attention(methods, setting.removed);
    if (chosen) {
      for (std::size_t i = 0; i < model->blocks().size(); ++i) {
        methods.surgeon().apply(
            InsertReducer{static_cast<int>(i), "chosen", Value::Table{{"r", setting.r}}});
      }
    } else {
      test::apply_tome(methods, setting.methods);
    }
    model->to(kGpu);
    model->train();
    images = normal_numbers(7, {6, 3, model->image_size(), model->image_size()})
                 .to(at::TensorOptions().device(kGpu).dtype(at::kFloat));
    upstream = normal_numbers(8, {6, 20}).to(images.options());
  }

  at::Tensor loss_of(const at::Tensor& logits) const {
    const at::Tensor single = logits.to(at::kFloat);
    return single.dim() == 3 ? (single * upstream.unsqueeze(1)).sum() : (single * upstream).sum();
  }

  at::Tensor plain_gradient(at::ScalarType type) {
    model->to(type);
    for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad() = at::Tensor();
    ForwardState state = pass_state();
    loss_of(model->forward(images.to(type), state)).backward();
    std::vector<at::Tensor> flat;
    for (const at::Tensor& parameter : model->parameters()) {
      flat.push_back(parameter.grad().to(at::kFloat).flatten());
    }
    return at::cat(flat);
  }

  void bind() {
    context.emplace(kGpu);
    gradients.clear();
    for (const at::Tensor& parameter : model->parameters()) {
      gradients.push_back(at::zeros(parameter.sizes(), parameter.options()));
      context->bind(parameter, {.working = parameter.detach().to(at::kBFloat16),
                                .gradient = gradients.back()});
    }
  }
  /// Adds to the gradients.
  void pass() {
    ForwardState state = pass_state();
    state.fused = &*context;
    loss_of(model->forward(images, state)).backward();
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

  /// Evaluation; the state of the pass keeps where tokens went.
  std::pair<at::Tensor, ForwardState> evaluate(bool fused) {
    model->eval();
    const at::NoGradGuard no_grad;
    ForwardState state;
    state.track_sources = true;
    FusedContext inference(kGpu);
    inference.bind_for_inference(*model);
    if (fused) state.fused = &inference;
    at::Tensor logits = model->forward(images, state).to(at::kFloat);
    state.fused = nullptr;
    c10::cuda::device_synchronize();
    return {logits, std::move(state)};
  }

 private:
  static ForwardState pass_state() {
    ForwardState state;
    state.seed = 3;
    return state;
  }
  Setting setting_;

 public:
  std::shared_ptr<Model> model;
  at::Tensor images, upstream;
  std::optional<FusedContext> context;
  std::vector<at::Tensor> gradients;
};

std::ostream& operator<<(std::ostream& out, const FusedTome::Setting& setting) {
  return out << setting.methods << ", without attention of block " << setting.removed;
}

double relative_distance(const at::Tensor& value, const at::Tensor& truth) {
  return ((value - truth).norm() / truth.norm()).item<double>();
}

class FusedTomeGpu : public testing::TestWithParam<FusedTome::Setting> {
 protected:
  void SetUp() override { skip_without_gpu(); }
};

// The same tokens are merged on both sides.
TEST_P(FusedTomeGpu, GradientsAreNearerToSinglePrecisionThanPlainBfloat16) {
  const at::Tensor truth = FusedTome(GetParam(), true).plain_gradient(at::kFloat);
  const double coarse =
      relative_distance(FusedTome(GetParam(), true).plain_gradient(at::kBFloat16), truth);
  const double fused = relative_distance(FusedTome(GetParam(), true).fused_gradient(), truth);
  std::cout << "relative error of the gradient: fused " << fused << ", plain bfloat16 " << coarse
            << "\n";
  EXPECT_LT(fused, 0.02);
  EXPECT_LT(fused, coarse);
}

TEST_P(FusedTomeGpu, EvaluatesAsPlainOperationsDo) {
  FusedTome chosen(GetParam(), true);
  EXPECT_LT(relative_distance(chosen.evaluate(true).first, chosen.evaluate(false).first), 0.03);
  // Keys in bfloat16 may choose other tokens now and then, but as many of them.
  FusedTome own(GetParam());
  const auto [logits, state] = own.evaluate(true);
  const auto [plain_logits, plain_state] = own.evaluate(false);
  const double agreement =
      (state.sources == plain_state.sources).to(at::kFloat).mean().item<double>();
  std::cout << "tokens at the same place: " << agreement << ", logits differ by "
            << relative_distance(logits, plain_logits) << "\n";
  EXPECT_EQ(state.token_sizes.sizes(), plain_state.token_sizes.sizes());
  EXPECT_TRUE(at::equal(state.token_sizes.sum(1), plain_state.token_sizes.sum(1)));
  EXPECT_TRUE(at::equal(state.token_sizes.select(1, 0), at::ones_like(logits.narrow(1, 0, 1))));
  EXPECT_GT(agreement, 0.5);
  EXPECT_LT(relative_distance(logits, plain_logits), 0.2);
}

TEST_P(FusedTomeGpu, CapturedPassesHaveTheBitsOfEagerOnes) {
  FusedTome subject(GetParam());
  const at::Tensor eager = subject.fused_gradient().clone();
  EXPECT_GT(eager.norm().item<double>(), 0.0);
  test::expect_captured_bits(
      [&] {
        for (const at::Tensor& gradient : subject.gradients) gradient.zero_();
        subject.pass();
      },
      [&] { return subject.flat_gradients(); }, eager);
}

constexpr std::string_view kNarrowVit =
    "image_size = 32\npatch_size = 4\nembed_dim = 96\ndepth = 3\nnum_heads = 3\n";

INSTANTIATE_TEST_SUITE_P(
    Settings, FusedTomeGpu,
    testing::Values(
        FusedTome::Setting{std::string(kNarrowVit), "r = 5"},
        FusedTome::Setting{std::string(kNarrowVit) + "distilled = true", "r = 8", -1, 9},
        FusedTome::Setting{std::string(kNarrowVit), "r = 7\nprop_attn = false", 1, 20},
        FusedTome::Setting{std::string(kNarrowVit), "r = 4\nwithout_attention = 'cached_keys'", 1},
        FusedTome::Setting{std::string(kNarrowVit), "r = 6\nmetric = 'features'"},
        FusedTome::Setting{"image_size = 224\nembed_dim = 384\nnum_heads = 6\n"
                           "patch_size = 16\ndepth = 3",
                           "r = 13", -1, 13}));

// The other tokens of the last block get no gradient through its MLP in either form.
TEST_P(FusedTomeGpu, TheClassTokenAloneInTheLastBlockIsExact) {
  FusedTome::Setting setting = GetParam();
  setting.methods = "schedule = [3, 2]";
  FusedTome whole(setting), reduced(setting);
  Surgeon surgeon(*reduced.model);
  surgeon.apply(InsertReducer{2, "class_token", {}});
  EXPECT_LT(relative_distance(reduced.evaluate(true).first, whole.evaluate(true).first), 0.01);
  whole.model->train();
  reduced.model->train();
  EXPECT_LT(relative_distance(reduced.fused_gradient(), whole.fused_gradient()), 0.015);
}

class TokenMergingGpu : public testing::Test {
 protected:
  void SetUp() override { skip_without_gpu(); }
};

// From the same bfloat16 keys, whose similarities are sums of floats on both sides.
TEST_F(TokenMergingGpu, FusedMatchingFindsThePlainPositions) {
  struct Size {
    std::int64_t tokens, heads, dim, r, protected_tokens;
  };
  for (const Size& s : {Size{197, 6, 64, 13, 1}, Size{66, 3, 32, 9, 2}, Size{41, 2, 16, 20, 0},
                        Size{7, 1, 64, 3, 1}}) {
    const at::Tensor packed = normal_numbers(9, {4, s.tokens, 3, s.heads, s.dim})
                                  .to(at::TensorOptions().device(kGpu).dtype(at::kBFloat16));
    const at::Tensor keys = packed.select(2, 1).transpose(1, 2);
    ASSERT_TRUE(fused::match_supported(keys));
    const at::Tensor sizes = at::arange(1, 4 * s.tokens + 1, packed.options().dtype(at::kFloat))
                                 .remainder(9)
                                 .add(1)
                                 .view({4, s.tokens, 1});
    const TokenGroups groups = fused::match_keys(keys, s.r, s.protected_tokens, sizes);
    const MergePlan plan = match_tokens(keys.to(at::kDouble).mean(1), s.r, s.protected_tokens);
    EXPECT_TRUE(at::equal(groups.positions.to(at::kLong), plan.positions)) << s.tokens;
    const at::Tensor x = normal_numbers(10, {4, s.tokens, 24}).to(sizes.options());
    const auto [merged, merged_sizes] = merge_weighted(plan, x, sizes);
    EXPECT_TRUE(at::equal(groups.sizes.unsqueeze(2), merged_sizes));
    EXPECT_TRUE(at::allclose(groups.log_sizes, groups.sizes.log(), 1e-6, 1e-6));
    EXPECT_TRUE(at::allclose(fused::merge_means(groups, x, sizes), merged, 1e-5, 1e-5));
    const TokenGroups again = fused::group_tokens(plan.positions, plan.left, sizes);
    EXPECT_TRUE(at::equal(again.members, groups.members));
    EXPECT_TRUE(at::equal(again.shares, groups.shares));
  }
}

TEST_F(TokenMergingGpu, KeysThatAreNoViewOfPackedOnesAreLeftToThePlainForm) {
  const auto half = at::TensorOptions().device(kGpu).dtype(at::kBFloat16);
  EXPECT_FALSE(fused::match_supported(at::ones({2, 3, 9, 32}, half)));
  EXPECT_FALSE(
      fused::match_supported(at::ones({2, 9, 3, 3, 32}, half).select(2, 2).transpose(1, 2)));
}

// Many tokens in one group: the order of additions would show.
TEST_F(TokenMergingGpu, PlainMergingRepeatsBitForBit) {
  const at::Tensor metric = at::ones({3, 301, 4}).to(kGpu);
  const MergePlan plan = match_tokens(metric, 150, 1);
  const auto bits = [&](at::Device device, at::ScalarType type) {
    const auto options = at::TensorOptions().device(device).dtype(type);
    MergePlan there = plan;
    there.positions = plan.positions.to(device);
    at::Tensor x = normal_numbers(11, {3, 301, 32}).to(options).requires_grad_();
    const auto [merged, sizes] = merge_weighted(there, x, {});
    const at::Tensor spread = unmerge(merged, there.positions);
    (spread * normal_numbers(12, {3, 301, 32}).to(options)).sum().backward();
    return std::pair(spread.detach(), x.grad());
  };
  const auto [first, first_gradient] = bits(kGpu, at::kFloat);
  for (int i = 0; i < 3; ++i) {
    const auto [spread, gradient] = bits(kGpu, at::kFloat);
    EXPECT_TRUE(at::equal(spread, first));
    EXPECT_TRUE(at::equal(gradient, first_gradient));
  }
  const auto [exact, exact_gradient] = bits(at::kCPU, at::kDouble);
  const auto [spread, gradient] = bits(kGpu, at::kDouble);
  EXPECT_TRUE(at::allclose(spread.cpu(), exact, 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(gradient.cpu(), exact_gradient, 1e-12, 1e-12));
}

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
