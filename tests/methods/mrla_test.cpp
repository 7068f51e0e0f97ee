#include "methods/mrla.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "methods/models/layer_maps.h"
#include "tests/methods/mrla_support.h"

// Fang et al., ICLR 2023: small cases by hand, properties, gradients.

namespace ablate {
namespace {

using test::largest_difference;
using test::MrlaStage;
using test::wavy_maps;

at::Tensor doubles(std::vector<double> values) { return at::tensor(values, at::kDouble); }
at::Tensor pixel(const std::vector<double>& values) {
  return doubles(values).view({1, static_cast<std::int64_t>(values.size()), 1, 1});
}

const std::vector<at::Tensor>& two_pixels() {
  static const std::vector<at::Tensor> maps{pixel({1, 2, 0, -1}), pixel({2, 0, 1, 1})};
  return maps;
}

TEST(ChannelConv, IsACrossCorrelationWithZerosAtTheEnds) {
  const at::Tensor y = doubles({1, 2, 0, -1}).view({1, 4});
  const at::Tensor w = doubles({0.5, 1, -1}).view({1, 1, 3});
  const at::Tensor expected = doubles({-1, 2.5, 2, -1}).view({1, 4});
  EXPECT_LT(largest_difference(channel_convs(y, {w})[0], expected), 1e-15);
  const auto both = channel_convs(y, {w, 2 * w});
  EXPECT_LT(largest_difference(both[0], expected), 1e-15);
  EXPECT_LT(largest_difference(both[1], 2 * expected), 1e-15);
}

TEST(ChannelConv, HasTheKernelOfEcaNet) {
  const std::vector<std::pair<std::int64_t, std::int64_t>> table{
      {16, 3},  {32, 3},  {64, 3},  {128, 5},  {192, 5}, {256, 5},
      {384, 5}, {512, 5}, {768, 5}, {1024, 5}, {2048, 7}};
  for (const auto& [channels, kernel] : table) EXPECT_EQ(channel_kernel(channels), kernel);
}

TEST(MrlaBase, GivesTheRowsAndSumsOfTwoBlocks) {
  MrlaStage<MrlaBase> stage(2, 4, 2);
  stage.set_identity();
  const auto retrieved = stage.retrieve(two_pixels());
  EXPECT_TRUE(at::equal(retrieved[0], two_pixels()[0]));
  const at::Tensor expected = pixel({1.8044296825, 0.3911406350, 0.8929581985, 0.7859163971});
  EXPECT_LT(largest_difference(retrieved[1], expected), 1e-10);

  ASSERT_EQ(stage.record.retrievals.size(), 2U);
  EXPECT_TRUE(at::equal(stage.record.retrievals[0].log_row, at::zeros({1, 2, 1}, at::kDouble)));
  const at::Tensor rows = stage.record.retrievals[1].log_row.exp();
  const at::Tensor expected_rows =
      doubles({0.1955703175, 0.8044296825, 0.1070418015, 0.8929581985}).view({1, 2, 2});
  EXPECT_LT(largest_difference(rows, expected_rows), 1e-10);
  // KL of the first row, padded, from the second.
  const at::Tensor divergence = -stage.record.retrievals[1].log_row.select(2, 0).flatten();
  const double root = std::sqrt(2.0);
  const at::Tensor closed = doubles({std::log1p(std::exp(root)), std::log1p(std::exp(3 / root))});
  EXPECT_LT(largest_difference(divergence, closed), 1e-14);
  EXPECT_LT(largest_difference(divergence, doubles({1.6318352839, 2.2345358526})), 1e-9);
}

TEST(MrlaLight, GivesTheGatesAndTheRecurrenceOfTwoBlocks) {
  MrlaStage<MrlaLight> stage(2, 4, 2);
  stage.set_identity();
  stage.set("gain", doubles({0.5}));
  const auto retrieved = stage.retrieve(two_pixels(), {pixel({0, 0, 0, 0}), two_pixels()[0]});
  ASSERT_EQ(stage.record.retrievals.size(), 2U);
  const auto gates = [&](std::size_t i) {
    return stage.record.retrievals[i].logits.sigmoid().flatten();
  };
  EXPECT_LT(largest_difference(gates(0), doubles({0.9716820815, 0.6697615493})), 1e-10);
  EXPECT_LT(largest_difference(gates(1), doubles({0.9441927808, 0.8044296825})), 1e-10);
  const at::Tensor expected = pixel({2.3883855616, 1, 0.8044296825, 0.3044296825});
  EXPECT_LT(largest_difference(retrieved[1], expected), 1e-10);
}

TEST(MrlaBase, MixesEarlierValuesByRowsThatSumToOne) {
  MrlaStage<MrlaBase> stage(4, 8, 4);
  const auto retrieved = stage.retrieve(wavy_maps(4, 3, 8, 5));
  std::vector<at::Tensor> maps;
  for (const SharedMap& value : stage.history->values) maps.push_back(value.map);
  const at::Tensor values = at::stack(maps);
  for (int t = 1; t < 4; ++t) {
    const at::Tensor row = stage.record.retrievals[static_cast<std::size_t>(t)].log_row.exp();
    EXPECT_EQ(row.sizes(), (std::vector<std::int64_t>{3, 2, t + 1}));
    EXPECT_LT(largest_difference(row.sum(2), at::ones({3, 2}, at::kDouble)), 1e-14);
    const at::Tensor so_far = values.narrow(0, 0, t + 1),
                     &o = retrieved[static_cast<std::size_t>(t)];
    EXPECT_TRUE((o <= so_far.amax(0) + 1e-12).all().item<bool>());
    EXPECT_TRUE((o >= so_far.amin(0) - 1e-12).all().item<bool>());
  }
}

TEST(MrlaBase, TreatsEachSampleByItself) {
  MrlaStage<MrlaBase> stage(3, 8, 4);
  const auto maps = wavy_maps(3, 4, 8, 5);
  const auto together = stage.retrieve(maps);
  std::vector<at::Tensor> one;
  for (const at::Tensor& map : maps) one.push_back(map.narrow(0, 2, 1));
  const auto alone = stage.retrieve(one);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_LT(largest_difference(alone[i], together[i].narrow(0, 2, 1)), 1e-13);
  }
}

TEST(MrlaBase, FollowsPermutedPixelsAndExchangedHeads) {
  MrlaStage<MrlaBase> stage(3, 8, 4);
  stage.set_identity();
  const auto maps = wavy_maps(3, 2, 8, 5);
  const auto plain = stage.retrieve(maps);
  const at::Tensor plain_row = stage.record.retrievals[2].log_row;
  const auto changed = [&](const std::function<at::Tensor(const at::Tensor&)>& change) {
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& map : maps) inputs.push_back(change(map));
    const auto retrieved = stage.retrieve(inputs);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_LT(largest_difference(retrieved[i], change(plain[i])), 1e-12);
    }
  };
  changed([](const at::Tensor& map) { return map.flip({2}).transpose(2, 3); });
  changed([](const at::Tensor& map) { return at::roll(map, 4, 1); });  // two heads of four
  EXPECT_LT(largest_difference(stage.record.retrievals[2].log_row, plain_row.flip({1})), 1e-12);
}

TEST(MrlaBase, ForgetsOtherStages) {
  const auto model = test::make_model("resnet20", "image_size = 16", 4);
  model->initialize(1);
  test::apply_methods(*model, {"name = 'mrla_base'"});
  model->eval();
  const auto logits = [&](const std::shared_ptr<LayerHistory>& before) {
    const at::NoGradGuard no_grad;
    ForwardState state;
    state.layer_history = before;
    return model->forward(test::wavy_images(2, 16), state);
  };
  auto garbage = std::make_shared<LayerHistory>();
  garbage->group = 77;
  garbage->keys.push_back(at::full({2, 9}, 1e30));
  garbage->values.push_back({at::full({2, 9, 3, 3}, 1e30)});
  EXPECT_TRUE(at::equal(logits(nullptr), logits(garbage)));
}

TEST(Mrla, StartsFromThePublishedDistributions) {
  const auto model = test::make_model("resnet20", "", 10);
  model->initialize(1);
  test::apply_methods(*model, {"name = 'mrla_light'"});
  const auto parameters = model->named_parameters();
  const at::Tensor value = parameters["layer3.0.layer_attention.value"];
  EXPECT_EQ(value.size(0), 256);
  EXPECT_NEAR(value.std().item<double>(), std::sqrt(2.0 / (9 * 256)), 0.001);
  EXPECT_NEAR(parameters["layer3.0.layer_attention.gain"].std().item<double>(), 1.0, 0.15);
  const at::Tensor query = parameters["layer3.0.layer_attention.query"];
  EXPECT_LE(query.abs().max().item<double>(), 1 / std::sqrt(5.0));
  EXPECT_TRUE(parameters["layer3.0.layer_attention.norm.weight"].eq(1).all().item<bool>());
  // Blocks and seeds have numbers of their own.
  EXPECT_FALSE(at::equal(value, parameters["layer3.1.layer_attention.value"]));
}

// In the last block of a model whose classifier reads means of what it puts out, so that the mean
// of the logits over many draws is that of no draw at all.
TEST(Mrla, DropPathKeepsTheMean) {
  const auto made = [](const char* rate) {
    auto model = test::make_model("resnet20", "image_size = 8", 4);
    model->initialize(1);
    test::apply_methods(*model, {cat("name = 'mrla_light'\nstages = [2]\ndrop_path = ", rate)});
    const at::NoGradGuard no_grad;
    for (const char* part : {"weight", "bias"}) {
      model->named_parameters()[cat("layer3.0.layer_attention.norm.", part)].zero_();
    }
    return model;
  };
  const auto drawn = made("0.25"), plain = made("0.0");
  const at::NoGradGuard no_grad;
  const auto logits = [](Model& model, std::int64_t step) {
    ForwardState state;
    state.seed = 9;
    state.step = step;
    return model.forward(test::wavy_images(8, 8), state);
  };
  EXPECT_TRUE(at::equal(logits(*drawn, 3), logits(*drawn, 3)));
  EXPECT_FALSE(at::equal(logits(*drawn, 3), logits(*drawn, 4)));
  const at::Tensor expected = logits(*plain, 0);
  constexpr int kSteps = 300;
  at::Tensor sum = at::zeros_like(expected), largest = at::zeros_like(expected);
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor one = logits(*drawn, step);
    sum += one;
    largest = at::maximum(largest, (one - expected).abs());
  }
  // A draw is off by at most `largest`; the mean of n of them by no more than five of their
  // standard deviations, each at most `largest` / sqrt(n).
  EXPECT_TRUE(((sum / kSteps - expected).abs() <= 5 * largest / std::sqrt(1.0 * kSteps))
                  .all()
                  .item<bool>());
  EXPECT_GT(largest.min().item<double>(), 1e-3);
}

/// Central differences of `loss` in every element of a parameter against its gradient.
void expect_gradient(const std::string& name, at::Tensor parameter,
                     const std::function<at::Tensor()>& loss) {
  parameter.mutable_grad().reset();
  loss().backward();
  const at::Tensor gradient = parameter.grad().clone();
  const at::NoGradGuard no_grad;
  double* data = parameter.mutable_data_ptr<double>();
  constexpr double kStep = 1e-6;
  for (std::int64_t i = 0; i < parameter.numel(); ++i) {
    const double value = data[i];
    data[i] = value + kStep;
    const double up = loss().item<double>();
    data[i] = value - kStep;
    const double down = loss().item<double>();
    data[i] = value;
    EXPECT_NEAR(gradient.flatten()[i].item<double>(), (up - down) / (2 * kStep), 1e-7)
        << name << "[" << i << "]";
  }
}

TEST(MrlaBase, GradientsAreThoseOfDifferences) {
  MrlaStage<MrlaBase> stage(3, 4, 2);
  const auto maps = wavy_maps(3, 2, 4, 3);
  const auto loss = [&] {
    const auto retrieved = stage.retrieve(maps);
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (std::size_t i = 0; i < retrieved.size(); ++i) {
      sum = sum + (retrieved[i] * (maps[i] + 0.3).sin()).sum();
    }
    return sum;
  };
  for (int block = 0; block < 3; ++block) {
    for (const char* name : {"query", "key", "value"}) {
      if (block == 0 && name == std::string("query")) continue;  // has none
      expect_gradient(cat("b", block, ".", name), stage.parameter(block, name), loss);
    }
  }
}

TEST(MrlaLight, GradientsAreThoseOfDifferences) {
  MrlaStage<MrlaLight> stage(2, 4, 2);
  const auto maps = wavy_maps(2, 2, 4, 3), previous = wavy_maps(3, 2, 4, 3);
  const auto loss = [&] {
    const auto retrieved = stage.retrieve(maps, {previous[1], previous[2]});
    return (retrieved[0] * maps[1]).sum() + (retrieved[1] * maps[0]).sum();
  };
  for (int block = 0; block < 2; ++block) {
    for (const char* name : {"query", "key", "value", "gain"}) {
      expect_gradient(cat("b", block, ".", name), stage.parameter(block, name), loss);
    }
  }
}

TEST(MrlaBase, TheFirstBlockLearnsOnlyThroughLaterOnes) {
  MrlaStage<MrlaBase> stage(3, 8, 4);
  const auto maps = wavy_maps(3, 2, 8, 4);
  const auto largest = [&](int block, const std::string& name) {
    const at::Tensor gradient = stage.parameter(block, name).grad();
    return gradient.defined() ? gradient.abs().max().item<double>() : 0.0;
  };
  stage.retrieve(maps)[0].square().sum().backward();
  EXPECT_EQ(largest(0, "query"), 0.0);
  EXPECT_EQ(largest(0, "key"), 0.0);
  EXPECT_GT(largest(0, "value"), 0.0);
  const double value_before = largest(0, "value");
  stage.retrieve(maps)[2].square().sum().backward();
  EXPECT_EQ(largest(0, "query"), 0.0);
  EXPECT_GT(largest(0, "key"), 0.0);
  EXPECT_NE(largest(0, "value"), value_before);
  EXPECT_GT(largest(1, "value"), 0.0);
}

}  // namespace
}  // namespace ablate
