#include "runner/worker/loader_threads.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "runner/core/cpu_quota.h"
#include "runner/core/process.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

/// Lets the calling thread run on these processors alone.
void bind_to(const std::vector<int>& cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus) CPU_SET(static_cast<unsigned>(cpu), &mask);
  ASSERT_EQ(::sched_setaffinity(0, sizeof mask, &mask), 0);
}

TEST(LoaderThreads, RanksDivideTheProcessorsTheyShare) {
  const int cpus = usable_cpus();
  for (const int ranks : {1, 2, 3}) {
    for (const int runs : {1, 2}) {
      test::run_ranks(ranks, [&](Communicator& world) {
        EXPECT_EQ(spare_loader_threads(world, runs), std::max(1, cpus / (ranks * runs) - 1));
      });
    }
  }
}

// As mpirun --bind-to or Slurm bind them: nobody else counts.
TEST(LoaderThreads, BoundRanksHaveTheirOwn) {
  const std::vector<int> cpus = available_cpus();
  if (cpus.size() < 2) GTEST_SKIP() << "needs two cores";
  const std::size_t half = cpus.size() / 2;
  test::run_ranks(2, [&](Communicator& world) {
    const auto middle = cpus.begin() + static_cast<std::ptrdiff_t>(half);
    bind_to(world.rank() == 0 ? std::vector(cpus.begin(), middle)
                              : std::vector(middle, cpus.end()));
    const std::size_t own = world.rank() == 0 ? half : cpus.size() - half;
    EXPECT_EQ(spare_loader_threads(world, 1), std::max(1, static_cast<int>(own) - 1));
  });
}

}  // namespace
}  // namespace ablate
