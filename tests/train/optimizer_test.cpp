#include "runner/train/optimizer.h"

#include <cmath>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/train/ema.h"
#include "tests/support/models.h"
#include "tests/train/arena_model.h"

namespace ablate::test {
namespace {

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, const std::string& settings) {
  const Value table = parse_toml(settings, "test.toml");
  Params params(table, "optimizer");
  auto optimizer = Registry<OptimizerInfo>::get(name).make(params);
  params.finish();
  return optimizer;
}

/// A model whose only parameter is the given one.
class OneParameter {
 public:
  explicit OneParameter(const at::Tensor& values) : model_(values.scalar_type()) {
    for (const char* name : {"first", "bias", "table", "last"}) model_.remove(name);
    model_.add("p", values.sizes(), values.scalar_type());
    arena.rebuild(model_, 1);
    value().copy_(values);
  }
  at::Tensor value() { return arena.parameters().narrow(0, 0, numel()).view(shape()); }
  void set_gradient(const at::Tensor& gradient) {
    arena.gradients().narrow(0, 0, numel()).copy_(gradient.flatten());
  }

 private:
  std::int64_t numel() { return arena.segments()[0].numel; }
  at::IntArrayRef shape() { return arena.segments()[0].parameter.sizes(); }
  ArenaModel model_;

 public:
  ParameterArena arena{model_};
};

at::Tensor gradient_of_step(int step, at::IntArrayRef shape, at::ScalarType type) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  const at::Tensor index = at::arange(count, at::kDouble);
  return at::sin(index * (step + 1) + 0.3).mul_(0.1 + 0.05 * step).view(shape).to(type);
}

// torch's AdamW in single precision, lr 1e-3, decay 0.05, printed to nine digits.
TEST(AdamW, Golden) {
  OneParameter p(at::tensor({1.0, -2.0}, at::kFloat).view({1, 2}));
  const auto adamw = make_optimizer("adamw", "weight_decay = 0.05");
  p.set_gradient(at::tensor({0.1, -0.2}, at::kFloat));
  adamw->step(p.arena, {.lr = 1e-3});
  EXPECT_NEAR(p.value()[0][0].item<float>(), 0.998950005, 1e-9);
  EXPECT_NEAR(p.value()[0][1].item<float>(), -1.998899937, 1e-9);
  p.set_gradient(at::tensor({0.3, 0.1}, at::kFloat));
  adamw->step(p.arena, {.lr = 1e-3});
  EXPECT_NEAR(p.value()[0][0].item<float>(), 0.997982264, 1e-9);
  EXPECT_NEAR(p.value()[0][1].item<float>(), -1.998533607, 1e-9);
}

/// The first step moves every element by lr g / (|g| + eps), after the decay.
TEST(AdamW, FirstStepInClosedForm) {
  OneParameter p(at::tensor({1.0, -2.0}, at::kDouble).view({1, 2}));
  p.set_gradient(at::tensor({0.1, -0.2}, at::kDouble));
  make_optimizer("adamw", "weight_decay = 0.05")->step(p.arena, {.lr = 1e-3});
  const double shrink = 1.0 - 1e-3 * 0.05;
  EXPECT_NEAR(p.value()[0][0].item<double>(), shrink - 1e-3 * 0.1 / (0.1 + 1e-8), 1e-15);
  EXPECT_NEAR(p.value()[0][1].item<double>(), -2 * shrink + 1e-3 * 0.2 / (0.2 + 1e-8), 1e-15);
}

TEST(AdamW, EqualsTorchOverTwentySteps) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const at::Tensor start = gradient_of_step(7, {37, 11}, type);
    OneParameter ours(start);
    const auto adamw = make_optimizer("adamw", "beta1=0.8\nbeta2=0.95\neps=1e-6\nweight_decay=0.1");
    std::vector<at::Tensor> value{start.clone()}, mean{at::zeros_like(start)};
    std::vector<at::Tensor> square{at::zeros_like(start)}, count{at::zeros({}, at::kFloat)};
    for (int step = 0; step < 20; ++step) {
      const double lr = 0.01 * (step + 1);
      const at::Tensor gradient = gradient_of_step(step, {37, 11}, type);
      ours.set_gradient(gradient);
      adamw->step(ours.arena, {.lr = lr});
      count[0].add_(1);
      at::_fused_adamw_(value, {gradient}, mean, square, {}, count, lr, 0.8, 0.95, 0.1, 1e-6,
                        /*amsgrad=*/false, /*maximize=*/false);
    }
    const double error = (ours.value() - value[0]).abs().max().item<double>();
    EXPECT_LT(error, type == at::kDouble ? 1e-12 : 1e-5) << at::toString(type);
  }
}

TEST(Sgd, EqualsTorchOverTwentySteps) {
  for (const bool nesterov : {false, true}) {
    const at::Tensor start = gradient_of_step(3, {41, 9}, at::kDouble);
    OneParameter ours(start);
    const auto sgd = make_optimizer(
        "sgd", cat("momentum=0.9\nweight_decay=0.01\nnesterov=", nesterov ? "true" : "false"));
    std::vector<at::Tensor> value{start.clone()}, velocity{at::zeros_like(start)};
    for (int step = 0; step < 20; ++step) {
      const double lr = 0.1 / (step + 1);
      const at::Tensor gradient = gradient_of_step(step, {41, 9}, at::kDouble);
      ours.set_gradient(gradient);
      sgd->step(ours.arena, {.lr = lr});
      at::_fused_sgd_(value, {gradient}, velocity, 0.01, 0.9, lr, /*dampening=*/0.0, nesterov,
                      /*maximize=*/false, /*is_first_step=*/step == 0);
    }
    EXPECT_LT((ours.value() - value[0]).abs().max().item<double>(), 1e-12) << nesterov;
  }
}

TEST(Sgd, WithoutMomentumKeepsNoState) {
  OneParameter p(at::full({2, 2}, 1.0, at::kDouble));
  const auto sgd = make_optimizer("sgd", "momentum=0.0\nweight_decay=0.5");
  p.set_gradient(at::full({4}, 2.0, at::kDouble));
  sgd->step(p.arena, {.lr = 0.1});
  EXPECT_NEAR(p.value()[1][1].item<double>(), 1.0 - 0.1 * (2.0 + 0.5), 1e-15);
  int buffers = 0;
  p.arena.for_each([&](const std::string&, const ArenaSegment&, at::Tensor) { ++buffers; });
  EXPECT_EQ(buffers, 1);
}

/// With zero gradients AdamW only decays: by 1 - lr wd where decay applies.
TEST(WeightDecay, AppliesByGroup) {
  const auto shrinkage = [](const std::string& settings, double factor) {
    ArenaModel model;
    ParameterArena arena(model);
    arena.configure("first", {.decay_factor = factor});
    std::map<std::string, double> result;
    const at::Tensor before = arena.parameters().clone();
    make_optimizer("adamw", settings)->step(arena, {.lr = 0.1});
    for (const ArenaSegment& s : arena.segments()) {
      const at::Tensor ratio =
          arena.parameters().narrow(0, s.offset, s.numel) / before.narrow(0, s.offset, s.numel);
      result[s.name] = ratio.mean().item<double>();
    }
    return result;
  };
  auto usual = shrinkage("weight_decay = 0.2", 0.5);
  EXPECT_NEAR(usual["last"], 0.98, 1e-15);
  EXPECT_NEAR(usual["first"], 0.99, 1e-15);
  EXPECT_EQ(usual["bias"], 1.0);
  EXPECT_EQ(usual["table"], 1.0);
  auto all = shrinkage("weight_decay = 0.2\ndecay_all = true", 0.0);
  EXPECT_NEAR(all["bias"], 0.98, 1e-15);
  EXPECT_NEAR(all["table"], 0.98, 1e-15);
  EXPECT_EQ(all["first"], 1.0) << "decay_all does not overrule a parameter's own setting";
  auto norms = shrinkage("weight_decay = 0.2\ndecay_norms = true", 1.0);
  EXPECT_NEAR(norms["bias"], 0.98, 1e-15);
  EXPECT_NEAR(norms["last"], 0.98, 1e-15);
  EXPECT_EQ(norms["table"], 1.0) << "the model lists it";
}

TEST(SegmentSettings, RateClampAndActivity) {
  ArenaModel model;
  ParameterArena arena(model);
  const auto sgd = make_optimizer("sgd", "momentum=0.0\nweight_decay=0.0");
  arena.configure("first", {.lr_factor = 0.25});
  arena.configure("last", {.clamp_low = 0.0, .clamp_high = 0.5});
  arena.configure("bias", {.active = false});
  arena.gradients().fill_(1.0);
  std::map<std::string, at::Tensor> before;
  for (const ArenaSegment& s : arena.segments()) before[s.name] = s.parameter.detach().clone();
  sgd->step(arena, {.lr = 0.4});
  EXPECT_TRUE(at::allclose(model.get("first"), before["first"] - 0.1, 1e-15, 1e-15));
  EXPECT_TRUE(at::allclose(model.get("last"), (before["last"] - 0.4).clamp(0.0, 0.5), 1e-15, 0));
  EXPECT_TRUE(at::equal(model.get("bias"), before["bias"]));
  const double active = 5 * 3 + 5 + 2 * 5;  // first, table, last: gradients are all 1
  EXPECT_DOUBLE_EQ(gradient_norm(arena), std::sqrt(active));
}

/// With unit gradients SGD moves every element by its learning rate: with four blocks the head's is
/// the schedule's, that of block i is 0.5^(4 - i) of it, that of the embeddings 0.5^5.
TEST(LayerDecay, ScalesTheRateByTheLayersAbove) {
  const auto model = make_model("vit",
                                "image_size = 8\npatch_size = 4\nembed_dim = 8\nnum_heads = 2\n"
                                "depth = 4");
  model->to(at::kDouble);
  for (const at::Tensor& parameter : model->parameters()) parameter.detach().zero_();
  ParameterArena arena(*model);
  arena.gradients().fill_(1.0);
  arena.configure("head.bias", {.lr_factor = 3.0});
  make_optimizer("sgd", "momentum=0.0\nweight_decay=0.0\nlayer_decay=0.5")
      ->step(arena, {.lr = 0.32});
  const std::map<std::string, double> moved = {{"cls_token", 0.01},
                                               {"pos_embed", 0.01},
                                               {"patch_embed.proj.bias", 0.01},
                                               {"blocks.0.attn.qkv.weight", 0.02},
                                               {"blocks.1.norm2.bias", 0.04},
                                               {"blocks.3.mlp.fc2.bias", 0.16},
                                               {"norm.weight", 0.32},
                                               {"head.weight", 0.32},
                                               {"head.bias", 0.96}};
  for (const auto& [name, rate] : moved) {
    const at::Tensor value = arena.segment(name).parameter.detach();
    EXPECT_NEAR(value.min().item<double>(), -rate, 1e-15) << name;
    EXPECT_NEAR(value.max().item<double>(), -rate, 1e-15) << name;
  }
}

TEST(GradientNorm, IsThatOfTheWholeVectorAndClips) {
  const at::Tensor gradient = gradient_of_step(0, {300, 200}, at::kFloat);
  OneParameter p(at::zeros_like(gradient));
  p.set_gradient(gradient);
  const double norm = gradient_norm(p.arena);
  EXPECT_NEAR(norm, gradient.to(at::kDouble).norm().item<double>(), 1e-10 * norm);
  EXPECT_EQ(clip_factor(norm, 0.0), 1.0);
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 0.25, 1e-6);
  // The factor acts as if the gradient had been scaled before.
  const auto sgd = make_optimizer("sgd", "momentum=0.0");
  sgd->step(p.arena, {.lr = 1.0, .gradient_scale = 0.25});
  EXPECT_TRUE(at::equal(p.value(), gradient * -0.25));
  p.set_gradient(gradient.index_fill(0, at::tensor({3}, at::kLong), NAN));
  EXPECT_TRUE(std::isnan(gradient_norm(p.arena)));
}

TEST(Update, IsBitwiseIndependentOfThreads) {
  const auto run = [](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    OneParameter p(gradient_of_step(1, {700, 300}, at::kFloat));
    const auto adamw = make_optimizer("adamw", "");
    double norms = 0.0;
    for (int step = 0; step < 3; ++step) {
      p.set_gradient(gradient_of_step(step, {700, 300}, at::kFloat));
      const double norm = gradient_norm(p.arena);
      norms += norm;
      adamw->step(p.arena,
                  {.lr = 0.01, .gradient_scale = clip_factor(norm, 1.0), .ema_decay = 0.9});
    }
    at::set_num_threads(before);
    return std::pair(norms, p.arena.parameters().clone());
  };
  const auto [one_norm, one] = run(1);
  const auto [three_norm, three] = run(3);
  EXPECT_EQ(one_norm, three_norm);
  EXPECT_TRUE(at::equal(one, three));
}

TEST(Ema, FollowsParametersAndBuffers) {
  ArenaModel model;
  ParameterArena arena(model);
  const double decay = 0.75;
  Ema ema(model, arena, decay);
  const auto sgd = make_optimizer("sgd", "");
  at::Tensor expected = model.get("last").detach().clone();
  double expected_mean = 0.0;
  for (int step = 0; step < 4; ++step) {
    arena.zero_grad();
    model.loss(rows(step, 4)).backward();
    sgd->step(arena, {.lr = 0.1, .ema_decay = decay});
    model.mean.fill_(step + 1.0);
    model.count.fill_(step);
    ema.update_buffers();
    expected = decay * expected + (1 - decay) * model.get("last").detach();
    expected_mean = decay * expected_mean + (1 - decay) * (step + 1.0);
  }
  const at::Tensor raw = arena.parameters().clone();
  {
    const Ema::Swap swap(ema);
    EXPECT_TRUE(at::allclose(model.get("last"), expected, 1e-14, 1e-16));
    EXPECT_NEAR(model.mean[2].item<double>(), expected_mean, 1e-14);
    EXPECT_EQ(model.count.item<std::int64_t>(), 3);
    EXPECT_FALSE(at::equal(arena.parameters(), raw));
  }
  EXPECT_TRUE(at::equal(arena.parameters(), raw));
  EXPECT_EQ(model.mean[2].item<double>(), 4.0);
  EXPECT_EQ(ema.buffers().size(), 1U);
}

TEST(OptimizerSettings, AreChecked) {
  EXPECT_THROW(make_optimizer("adam", ""), SpecError);
  EXPECT_THROW(make_optimizer("adamw", "beta1 = 1.5"), SpecError);
  EXPECT_THROW(make_optimizer("adamw", "betas = 1"), SpecError);
  EXPECT_THROW(make_optimizer("sgd", "nesterov = 3"), SpecError);
  const Value table = parse_toml("lr = 0.5", "test.toml");
  Params params(table, "optimizer");
  EXPECT_EQ(read_base_lr(params), 0.5);
}

}  // namespace
}  // namespace ablate::test
