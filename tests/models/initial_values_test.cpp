#include <gtest/gtest.h>

#include "methods/models/layers.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate {
namespace {

TEST(InitialValues, AreTheNumbersOfTheParametersStreamInOrder) {
  at::Tensor parameter = at::empty({5, 7}, at::kDouble);  // odd: the last block is used by half
  fill_normal(parameter, 3, "blocks.0.mlp.fc1.weight", 0.02);
  RandomStream stream(3, Purpose::ParameterInit, hash64("blocks.0.mlp.fc1.weight"));
  for (std::int64_t i = 0; i < parameter.numel(); ++i) {
    EXPECT_EQ(parameter.view(-1)[i].item<double>(), 0.02 * stream.normal()) << i;
  }
  fill_uniform(parameter, 3, "head.weight", 0.5);
  RandomStream uniform(3, Purpose::ParameterInit, hash64("head.weight"));
  for (std::int64_t i = 0; i < parameter.numel(); ++i) {
    EXPECT_EQ(parameter.view(-1)[i].item<double>(), uniform.uniform(-0.5, 0.5)) << i;
  }
}

TEST(InitialValues, DoNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  at::Tensor alone = at::empty({300, 333}), together = at::empty({300, 333});
  at::set_num_threads(1);
  fill_truncated_normal(alone, 11, "head.weight", 0.02);
  at::set_num_threads(3);
  fill_truncated_normal(together, 11, "head.weight", 0.02);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(alone, together));
  EXPECT_NEAR(alone.std().item<double>(), 0.02, 0.0005);
}

}  // namespace
}  // namespace ablate
