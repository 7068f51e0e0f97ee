#include <gtest/gtest.h>

#include "methods/models/channel_gates.h"
#include "tests/methods/channel_pruning_support.h"
#include "tests/models/channel_support.h"

// Channel pruning of transformers with windows, stages and linear attention.

namespace ablate {
namespace {

using test::model_to_prune;
using test::pruning_context;
using test::pruning_stack;
using test::share_after;

struct Family {
  const char* name;
  const char* settings;
};

const Family kFamilies[] = {
    {"flatten_vit", test::kPrunedVit},
    {"swin",
     "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [2, 1]\n"
     "num_heads = [2, 4]\nattention = 'SL'\nwindow = 4"},
    {"pvt",
     "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\n"
     "num_heads = [1, 2]\nmlp_ratios = [2, 2]\nreductions = [4, 1]\nattention = 'SL'"},
    {"cswin",
     "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\n"
     "num_heads = [2, 4]\nattention = 'SL'\nstripes = [2, 4]"}};

// Counted costs are what the closed form says, in every family, dense and cut.
TEST(ChannelPruningOfFamilies, HitsItsTargetInEveryFamily) {
  for (const Family& family : kFamilies) {
    for (const char* settings :
         {"target = 0.7", "target = 0.8\nreweight = 'none'", "target = 0.7\nreweight = 'static'",
          "target = 0.7\nreweight = 'least_squares'", "target = 0.7\ntie_qkv = true",
          "target = 0.7\ninit = 'single_channel'\nsimilarity = 'activations'",
          "target = 0.7\ncriterion = 'taylor'", "target = 0.7\ncriterion = 'magnitude'",
          "target = 0.7\nhead_balance = 'none'", "target = 0.7\ntie_v_index = true"}) {
      const double share = share_after(settings, model_to_prune(family.name, family.settings));
      const double target = std::stod(std::string(settings).substr(9, 3));
      EXPECT_LE(share, target) << family.name << " " << settings;
      EXPECT_GT(share, target - 0.01) << family.name << " " << settings;
    }
  }
}

// A channel without any key is the first to go, and everybody starts
// over the threshold.
TEST(ChannelPruningOfFamilies, StartsFromTheAttentionMapsOfLinearAttention) {
  for (const char* init : {"attention", "single_channel"}) {
    const auto model = model_to_prune("flatten_vit", test::kPrunedVit);
    {
      const at::NoGradGuard no_grad;
      test::fill_wavily(*model, 0.2);
      auto parameters = model->named_parameters();
      // Its features are the smallest there are.
      parameters["blocks.1.attn.qkv.weight"][32 + 8 + 5] = 0.0;
      parameters["blocks.1.attn.qkv.bias"][32 + 8 + 5] = 0.0;
      parameters["blocks.1.attn.positional_encoding"].select(2, 8 + 5).fill_(0.0);
    }
    const auto context = pruning_context(*model, 10);
    MethodStack stack =
        pruning_stack(std::string("target = 0.7\nreweight = 'none'\ninit = '") + init + "'");
    stack.apply(*context);
    ChannelGates& gates = *model->channel_gates();
    const at::Tensor queries = gates.scores(3);  // "qk" of block 1
    EXPECT_EQ(queries[1].argmin().item<std::int64_t>(), 5) << init;
    for (std::size_t i = 0; i < gates.seats().size(); ++i) {
      EXPECT_GT((gates.scores(i) * gates.weights(i)).min().item<double>(), 0.5) << i;
      const bool hidden = i % 3 == 2;
      const double low = gates.scores(i).min().item<double>(),
                   high = gates.scores(i).max().item<double>();
      EXPECT_NEAR(low, hidden ? 1.0 : 0.8, 1e-6);
      EXPECT_NEAR(high, hidden ? 1.0 : 1.2, 1e-6);
    }
  }
}

}  // namespace
}  // namespace ablate
