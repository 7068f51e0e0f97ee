#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "methods/models/attention.h"
#include "methods/transfer_entropy.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/nose_support.h"
#include "tests/support/run_ranks.h"

// The search of NOSE on models: transfer entropy with attention branches passed by.

namespace ablate {
namespace {

using test::golden_batches;
using test::golden_vit;
using test::make_nose;
using test::MethodContext;
using test::wavy_images;

/// The record of the one selection that a context was told.
nlohmann::json selection_of(const MethodContext& context) {
  std::vector<nlohmann::json> found;
  for (const auto& [kind, body] : context.events) {
    if (kind == "nose_selection") found.push_back(body.at("steps"));
  }
  EXPECT_EQ(found.size(), 1U);
  return found.at(0);
}

/// Entropy of the class head or the class token over the 24 images, in one pass, with the attention
/// of `skipped` blocks passed by.
double direct_entropy(const std::vector<int>& skipped, bool logits) {
  const at::NoGradGuard no_grad;
  const auto model = golden_vit();
  for (const int block : skipped) model->blocks()[block]->set_attention_gains({1, 0});
  const at::Tensor images = wavy_images(25, 32, at::kDouble).narrow(0, 0, 24);
  ForwardState state;
  const at::Tensor features =
      logits ? model->forward(images, state) : model->forward_features(images, state);
  const at::Tensor deviation = features.std(0, /*unbiased=*/logits);
  return (logits ? deviation.log2() : deviation.log()).sum().item<double>();
}

TEST(NoseSearch, MeasuresTransferEntropyAtEitherReadOut) {
  for (const bool logits : {true, false}) {
    const auto model = golden_vit();
    MethodContext context(*model);
    context.batches = golden_batches();
    make_nose(cat("remove = 2\nreadout = '", logits ? "logits" : "features", "'")).apply(context);
    const nlohmann::json steps = selection_of(context);
    ASSERT_EQ(steps.size(), 2U);
    std::vector<int> before;
    const double full = direct_entropy({}, logits);
    for (const auto& step : steps) {
      double least = 1e300;
      for (const auto& [layer, te] : step.at("tried").get<std::vector<std::pair<int, double>>>()) {
        std::vector<int> skipped = before;
        skipped.push_back(layer);
        EXPECT_NEAR(te, full - direct_entropy(skipped, logits), 1e-9) << layer;
        least = std::min(least, te);
      }
      EXPECT_EQ(step.at("transfer_entropy").get<double>(), least);
      before.push_back(step.at("chosen").get<int>());
    }
    EXPECT_EQ(context.visited.size(), 1U + 3 + 2);
    EXPECT_EQ(context.visited[0], std::pair(DecisionSplit::Train, std::int64_t{2048}));
  }
}

void silence_attention(Model& model, int block) {
  const at::NoGradGuard no_grad;
  for (const char* kind : {"weight", "bias"}) {
    model.named_parameters()[cat("blocks.", block, ".attn.proj.", kind)].zero_();
  }
}

// A layer that writes nothing has a transfer entropy of exactly 0.
TEST(NoseSearch, FindsALayerThatWritesNothing) {
  const auto model = golden_vit();
  silence_attention(*model, 2);
  MethodContext context(*model);
  context.length = 4;
  context.batches = golden_batches();
  make_nose("remove = 1\ntransfer_entropy = 'absolute'\ndecide_on = 'holdout'\nsamples = 24")
      .apply(context);
  const nlohmann::json steps = selection_of(context);
  EXPECT_EQ(steps[0].at("chosen"), 2);
  EXPECT_EQ(steps[0].at("transfer_entropy").get<double>(), 0.0);
  EXPECT_EQ(context.visited[0], std::pair(DecisionSplit::Holdout, std::int64_t{24}));
  EXPECT_EQ(context.metrics.at("nose/te/2"), std::vector<double>{0.0});
  for (const Block* block : model->blocks()) {
    EXPECT_EQ(block->attention_gains().skip, 1.0) << "the search must leave no trace";
  }
}

// In any context: beside another skipped layer it adds exactly nothing.
TEST(NoseSearch, ALayerThatWritesNothingAddsNothingToAnySet) {
  const auto model = golden_vit();
  silence_attention(*model, 1);
  MethodContext context(*model);
  context.batches = golden_batches();
  make_nose("remove = 2").apply(context);
  const nlohmann::json steps = selection_of(context);
  const auto te = [&](std::size_t step, int layer) {
    for (const auto& [tried, value] :
         steps[step].at("tried").get<std::vector<std::pair<int, double>>>()) {
      if (tried == layer) return value;
    }
    return std::nan("");
  };
  const int first = steps[0].at("chosen").get<int>();
  if (first == 1) {
    for (const int other : {0, 2}) EXPECT_EQ(te(1, other), te(0, other)) << other;
  } else {
    EXPECT_EQ(te(1, 1), te(0, first));
  }
}

/// Blocks that scale each channel, x <- skip x + branch (a - 1) x: with attention passed by, the
/// entropy of the output loses sum_j ln a_j exactly.
class ScalingModel final : public Model {
 public:
  explicit ScalingModel(std::vector<at::Tensor> scales) : scales_(std::move(scales)) {
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      const std::string name = cat("block", i);
      const std::int64_t dim = scales_[i].size(0);
      blocks_.push_back(register_module(
          name, std::make_shared<Block>(BlockOptions{.dim = dim, .num_heads = 1}, name,
                                        std::make_shared<Attention>(dim, 1))));
    }
  }
  /// The "image" is its own features, (B, C).
  at::Tensor forward_features(const at::Tensor& images, ForwardState&) override {
    at::Tensor x = images.flatten(1);
    for (std::size_t i = 0; i < scales_.size(); ++i) {
      const ResidualGains gains = blocks_[i]->attention_gains();
      x = gains.skip * x + gains.branch * (scales_[i] - 1) * x;
    }
    return x;
  }
  at::Tensor forward(const at::Tensor& images, ForwardState& state) override {
    return forward_features(images, state);
  }
  std::vector<Block*> blocks() override {
    std::vector<Block*> result;
    for (const auto& block : blocks_) result.push_back(block.get());
    return result;
  }
  std::vector<std::string> head_names() const override { return {}; }
  std::int64_t image_size() const override { return 1; }
  void initialize(std::uint64_t) override {}

 private:
  std::vector<at::Tensor> scales_;
  std::vector<std::shared_ptr<Block>> blocks_;
};

// Linear layers whose transfer entropies are known, sum_j ln(sigma_full / sigma_skipped).
TEST(NoseSearch, OfLinearLayersGivesTheAnalyticValues) {
  const std::vector<at::Tensor> scales{at::tensor({2.0, 3.0, 0.5}, at::kDouble),
                                       at::tensor({1.5, 1.25, 0.25}, at::kDouble),
                                       at::tensor({4.0, 0.75, 1.125}, at::kDouble)};
  for (const bool logits : {true, false}) {
    ScalingModel model(scales);
    MethodContext context(model);
    context.length = 4;
    context.batches = {{at::arange(90, at::kDouble).mul(1.7).sin().view({30, 3}), at::ones({30})}};
    const auto te = [&](std::initializer_list<int> layers) {
      double sum = 0;
      for (const int layer : layers) {
        sum += scales[static_cast<std::size_t>(layer)].log().sum().item<double>();
      }
      return logits ? sum / std::log(2.0) : sum;
    };
    make_nose(cat("remove = 2\nreadout = '", logits ? "logits" : "features", "'")).apply(context);
    const nlohmann::json steps = selection_of(context);
    // ln 0.46875 < ln 3 < ln 3.375: skipping a layer that shrinks what passes raises the entropy.
    EXPECT_EQ(steps[0].at("chosen"), 1);
    EXPECT_NEAR(steps[0].at("transfer_entropy").get<double>(), te({1}), 1e-12);
    EXPECT_EQ(steps[1].at("chosen"), 0);
    EXPECT_NEAR(steps[1].at("transfer_entropy").get<double>(), te({0, 1}), 1e-12);
    const auto tried = steps[0].at("tried").get<std::vector<std::pair<int, double>>>();
    for (const auto& [layer, value] : tried) EXPECT_NEAR(value, te({layer}), 1e-12) << layer;
  }
}

TEST(NoseSearch, SelectsTheSameLayersOnAnyNumberOfRanks) {
  const auto select = [](Communicator& comm) {
    const auto model = golden_vit();
    MethodContext context(*model, comm);
    const auto batches = golden_batches();
    for (std::size_t i = 0; i < batches.size(); ++i) {
      if (i % static_cast<std::size_t>(comm.size()) == static_cast<std::size_t>(comm.rank())) {
        context.batches.push_back(batches[i]);
      }
    }
    make_nose("remove = 2").apply(context);
    return selection_of(context);
  };
  const nlohmann::json alone = select(*make_self_communicator());
  for (const int size : {2, 4}) {
    std::vector<nlohmann::json> found(static_cast<std::size_t>(size));
    test::run_ranks(size, [&](Communicator& comm) {
      found[static_cast<std::size_t>(comm.rank())] = select(comm);
    });
    for (const nlohmann::json& steps : found) {
      EXPECT_EQ(steps, found[0]);
      for (std::size_t k = 0; k < 2; ++k) {
        EXPECT_EQ(steps[k].at("chosen"), alone[k].at("chosen"));
        EXPECT_NEAR(steps[k].at("transfer_entropy").get<double>(),
                    alone[k].at("transfer_entropy").get<double>(), 1e-9);
      }
    }
  }
}

// On a model that merges tokens already, by the keys of block 2.
TEST(NoseSearch, LeavesAttentionWhoseKeysAreCompared) {
  const auto merging = [] {
    auto model = golden_vit();
    auto context = std::make_unique<MethodContext>(*model);
    MethodStack({test::method_component("name = 'tome'\nschedule = [0, 0, 3]")}).apply(*context);
    context->batches = golden_batches();
    return std::pair(model, std::move(context));
  };
  const auto [model, context] = merging();
  make_nose("remove = 2").apply(*context);
  EXPECT_EQ(model->blocks()[0]->mixer(), nullptr);
  EXPECT_EQ(model->blocks()[1]->mixer(), nullptr);
  EXPECT_NE(model->blocks()[2]->mixer(), nullptr);
  const auto [other, refused] = merging();
  const std::string message = test::message_of<SpecError>(
      [&, context = refused.get()] { make_nose("remove = 3").apply(*context); });
  EXPECT_NE(message.find("3 attention layers, of which 1 give their keys to token reducers"),
            std::string::npos)
      << message;
}

TEST(NoseSearch, RefusesFeaturesThatAreNoNumbers) {
  const auto model = golden_vit();
  {
    const at::NoGradGuard no_grad;
    model->named_parameters()["head.bias"].select(0, 3).fill_(std::nan(""));
  }
  MethodContext context(*model);
  context.batches = golden_batches();
  const std::string message =
      test::message_of<Error>([&] { make_nose("remove = 1").apply(context); });
  EXPECT_NE(message.find("channel 3 (of 5) is not finite"), std::string::npos) << message;
}

}  // namespace
}  // namespace ablate
