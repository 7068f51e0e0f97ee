#include "methods/channel_pruning.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/core/expect_error.h"
#include "tests/methods/channel_pruning_support.h"
#include "tests/models/channel_support.h"

namespace ablate {
namespace {

using test::largest_difference;
using test::message_of;
using test::pruning_context;
using test::pruning_stack;
using test::share_after;
using test::vit_to_prune;

TEST(ChannelPruning, HitsItsTargetWhateverDecides) {
  for (const char* settings :
       {"target = 0.7",
        "target = 0.5\nreweight = 'none'",
        "target = 0.7\nreweight = 'static'",
        "target = 0.7\nreweight = 'head'",
        "target = 0.6\nreweight = 'least_squares'",
        "target = 0.7\ncriterion = 'magnitude'",
        "target = 0.7\ncriterion = 'taylor'",
        "target = 0.7\ncriterion = 'random'",
        "target = 0.7\ncriterion = 'magnitude'\nallocation = 'uniform'\nreweight = 'none'",
        "target = 0.7\nhead_balance = 'rank'",
        "target = 0.7\nhead_balance = 'multiplicative'",
        "target = 0.7\nhead_balance = 'none'",
        "target = 0.7\nsimilarity = 'activations'",
        "target = 0.7\nsimilarity = 'none'\ninit = 'random'\ninit_everywhere = true",
        "target = 0.7\ninit_everywhere = true",
        "target = 0.7\ntie_qkv = true",
        "target = 0.7\ninit = 'single_channel'\ninit_everywhere = true",
        "target = 0.7\ntie_v_index = true",
        "target = 0.8\nmlp = false",
        "target = 0.8\nqk = false\nv = false",
        "target = 0.6\nmin_share = 0.0"}) {
    const double share = share_after(settings);
    const double target = std::stod(std::string(settings).substr(9, 3));
    EXPECT_LE(share, target) << settings;
    EXPECT_GT(share, target - 0.01) << settings;
  }
}

TEST(ChannelPruning, KeepsWidthsThatHardwareLikes) {
  const auto model = vit_to_prune();
  const auto context = pruning_context(*model, 0);
  MethodStack stack = pruning_stack("target = 0.7\nwidth_multiple = 16");
  stack.apply(*context);
  for (const ChannelSite& site : channel_sites(*model)) {
    EXPECT_EQ(site.group->channels() % 16, 0) << site.group->name;
  }
}

// Rows that leave an ingredient out cut other channels.
TEST(ChannelPruning, EachIngredientMatters) {
  const auto edits_with = [](const std::string& more) {
    const auto model = vit_to_prune();
    const auto context = pruning_context(*model, 0);
    MethodStack stack = pruning_stack("target = 0.6\ninit_everywhere = true\n" + more);
    stack.apply(*context);
    return context->surgeon().edits();
  };
  const std::vector<Edit> all = edits_with("");
  for (const char* without :
       {"similarity = 'none'", "head_balance = 'none'", "reweight = 'none'", "init = 'constant'",
        "similarity_of = 'max'", "similarity = 'activations'", "qk = false"}) {
    EXPECT_NE(edits_with(without), all) << without;
  }
  EXPECT_EQ(edits_with(""), all);
}

TEST(ChannelPruning, RefusesWhatCannotBe) {
  const auto refusal = [](const std::string& settings) {
    return message_of<SpecError>([&] { share_after(settings); });
  };
  EXPECT_NE(refusal("target = 0.05").find("raise target"), std::string::npos);
  EXPECT_NE(refusal("target = 0.7\nqk = false\nv = false\nmlp = false").find("nothing to prune"),
            std::string::npos);
  EXPECT_NE(refusal("target = 0.7\ntie_qkv = true\nqk = false").find("needs qk = true"),
            std::string::npos);
  EXPECT_NE(refusal("target = 0.7\ncriterion = 'random'\nsearch_epochs = 1").find("no search"),
            std::string::npos);
  EXPECT_FALSE(refusal("target = 1.0").empty());
  EXPECT_FALSE(refusal("").empty());
}

/// One gradient of the loss of a training pass with the method's terms, no task: what the budget
/// alone pulls.
TEST(ChannelPruning, BudgetPullsByCostAndWeight) {
  const auto model = vit_to_prune();
  model->train();
  const auto context = pruning_context(*model, 10);
  MethodStack stack = pruning_stack("target = 0.5\nramp = 0.0\nlambda = 2.0\nreweight = 'none'");
  stack.apply(*context);
  stack.between_steps(*context);
  ForwardState state;
  model->forward(context->batches.front().first, state);
  stack.in_step(*context, at::zeros({})).backward();
  const ChannelGates& gates = *model->channel_gates();
  // Dense: cost 1, aimed at 0.5, so e = 1 and dL/dm = lambda 2 e (dM/dn / M) / 0.5 w.
  const double dense = static_cast<double>(context->macs());
  const auto edits = context->surgeon().edits();
  const auto& seats = std::get<AttachGates>(edits.front()).seats;
  const double tokens = 17, dim = 32;
  for (std::size_t i = 0; i < seats.size(); ++i) {
    const bool mlp = seats[i].places.front().group == "mlp";
    const double each = mlp ? 2 * tokens * dim : 2 * tokens * dim + tokens * tokens;
    const double pull = 2.0 * 2.0 * 1.0 * (each / dense) / 0.5;
    at::Tensor grad;
    for (const auto& item : model->named_parameters()) {
      const bool stack_of_seat =
          item.key() == (mlp ? "channel_gates.scores_1" : "channel_gates.scores_0");
      if (stack_of_seat) grad = item.value().grad();
    }
    // Stacked in order: queries and keys, values, hidden layers apart.
    const std::size_t block = i / 3;
    const std::size_t row = mlp ? block : 2 * block + i % 3;
    EXPECT_TRUE(
        at::allclose(grad[static_cast<std::int64_t>(row)], gates.weights(i) * pull, 1e-4, 1e-8))
        << i;
  }
}

TEST(ChannelPruning, AimsLowerAndLowerAndThenCuts) {
  const auto model = vit_to_prune();
  const auto context = pruning_context(*model, 10);  // 40 steps, 4 of search
  MethodStack stack = pruning_stack("target = 0.6\nramp = 0.5");
  stack.apply(*context);
  EXPECT_FALSE(stack.settled());
  for (context->now = 0; context->now < 6; ++context->now) stack.between_steps(*context);
  EXPECT_EQ(context->metrics.at("channel_pruning/aim").size(), 4U);
  EXPECT_DOUBLE_EQ(context->metrics.at("channel_pruning/aim")[0], 0.8);
  EXPECT_DOUBLE_EQ(context->metrics.at("channel_pruning/aim")[1], 0.6);
  EXPECT_DOUBLE_EQ(context->metrics.at("channel_pruning/aim")[3], 0.6);
  EXPECT_TRUE(stack.settled());
  EXPECT_EQ(model->channel_gates(), nullptr);
  ASSERT_EQ(context->events.size(), 1U);
  EXPECT_EQ(context->events.front().first, "channels_cut");
}

// Test 17: predictions after the cut are those of the masked network, when the mask that was
// learned already meets the budget.
TEST(ChannelPruning, CutsWhatItsGatesHaveMasked) {
  const auto model = vit_to_prune();
  model->to(at::kDouble);
  model->eval();
  const auto context = pruning_context(*model, 10);
  context->batches.front().first = context->batches.front().first.to(at::kDouble);
  MethodStack stack = pruning_stack("target = 0.6\nreweight = 'none'");
  stack.apply(*context);
  ChannelGates& gates = *model->channel_gates();
  // Scores whose snap, at offset 0, is what the gates show: let the plan itself say which.
  using namespace methods::channel_pruning;
  Seats seats = find_seats(*model, std::get<AttachGates>(context->surgeon().edits().back()).seats);
  Value table = parse_toml("target = 0.6", "test");
  Params params(table, "test");
  const Settings settings = Settings::read(params);
  SeatValues scores;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    scores.push_back(gates.scores(i) * gates.weights(i));
  }
  const ChannelCosts costs = costs_of(*model, seats, context->macs());
  const Cut cut =
      plan_cut(seats, scores, costs, 0.6 * static_cast<double>(context->macs()), settings);
  for (const KeepChannels& edit : cut.edits) {
    for (std::size_t i = 0; i < seats.sites.size(); ++i) {
      if (seats.places[i].places.front() != ChannelPlace{edit.block, edit.group}) continue;
      const at::Tensor mask = test::mask_of(*seats.sites[i].front().group, edit.channels,
                                            at::TensorOptions().dtype(at::kDouble));
      const at::NoGradGuard no_grad;
      gates.scores(i).copy_(0.2 + 0.8 * mask.view_as(gates.scores(i)));
      gates.weights(i).fill_(1.0);
    }
  }
  const at::Tensor images = test::wavy_images(4, 16, at::kDouble);
  const at::Tensor masked = test::logits_of(*model, images);
  context->now = 4;
  stack.between_steps(*context);
  EXPECT_LT(largest_difference(test::logits_of(*model, images), masked), 1e-12);
}

// The correction makes the outputs after the cut nearer to what they were.
TEST(ChannelPruning, LeastSquaresBringsTheProjectionNearer) {
  const auto distance = [](const std::string& reweight) {
    const auto model = vit_to_prune();
    model->eval();
    test::fill_wavily(*model, 0.2);
    const auto context = pruning_context(*model, 0);
    const at::Tensor images = context->batches.front().first;
    const at::Tensor before = test::logits_of(*model, images);
    MethodStack stack =
        pruning_stack("target = 0.9\nqk = false\nmlp = false\nreweight = '" + reweight + "'");
    stack.apply(*context);
    return largest_difference(test::logits_of(*model, images), before);
  };
  EXPECT_LT(distance("least_squares"), 0.5 * distance("none"));
}

TEST(ChannelPruning, LeavesAttentionsThatWillGoAlone) {
  const auto model = vit_to_prune();
  const auto context = pruning_context(*model, 0);
  context->surgeon().apply(MarkRetiring{1});
  MethodStack stack = pruning_stack("target = 0.8\nreweight = 'none'");
  stack.apply(*context);
  for (const Edit& edit : context->surgeon().edits()) {
    const auto* cut = std::get_if<KeepChannels>(&edit);
    if (cut && cut->block == 1) {
      EXPECT_EQ(cut->group, "mlp");
    }
  }
  // The budget is that of the network without it.
  context->surgeon().apply(SetGains{1, 2.0, 0.0});
  context->surgeon().apply(RemoveMixer{1});
  const auto dense = vit_to_prune();
  Surgeon surgeon(*dense);
  surgeon.apply(SetGains{1, 2.0, 0.0});
  surgeon.apply(RemoveMixer{1});
  const double share = static_cast<double>(measure_cost(*model).macs) /
                       static_cast<double>(measure_cost(*dense).macs);
  EXPECT_LE(share, 0.8);
  EXPECT_GT(share, 0.79);
}

}  // namespace
}  // namespace ablate
