#include <gtest/gtest.h>
#include <sched.h>

#include "methods/models/layers.h"
#include "runner/core/hash.h"
#include "runner/core/process.h"
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

/// Runs `body` on one CPU of those that this process may use.
template <typename Body>
void on_one_cpu(const Body& body) {
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  CPU_SET(available_cpus().front(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  body();
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

TEST(InitialValues, DoNotDependOnTheNumberOfThreads) {
  at::Tensor alone = at::empty({300, 333}), together = at::empty({300, 333});
  on_one_cpu([&] { fill_truncated_normal(alone, 11, "head.weight", 0.02); });
  fill_truncated_normal(together, 11, "head.weight", 0.02);
  EXPECT_TRUE(at::equal(alone, together));
  EXPECT_NEAR(alone.std().item<double>(), 0.02, 0.0005);
}

}  // namespace
}  // namespace ablate
