#include <gtest/gtest.h>

#include "distributed/launcher.h"
#include "tests/distributed/communicator_contract.h"
#include "tests/support/mpi_world.h"

namespace ablate::test {
namespace {

TEST(MpiCommunicator, HoldsTheContract) { contract::holds(mpi_world()); }

TEST(MpiCommunicator, IsTheWorldOfTheLauncher) {
  EXPECT_EQ(mpi_world().backend(), "mpi");
  EXPECT_EQ(promised_world_size().value_or(1), mpi_world().size());
}

TEST(MpiCommunicator, ReductionsOfPartsAndWholeInterleave) {
  Communicator& world = mpi_world();
  const auto part = world.split(world.rank() % 2, 0);
  at::Tensor whole_sum = at::ones({50000});
  at::Tensor part_sum = at::ones({50000});
  const auto whole = world.start_all_reduce(whole_sum);
  const auto some = part->start_all_reduce(part_sum);
  EXPECT_EQ(world.all_reduce(std::int64_t{1}), world.size());
  some->wait();
  whole->wait();
  EXPECT_TRUE((whole_sum == world.size()).all().item<bool>());
  EXPECT_TRUE((part_sum == part->size()).all().item<bool>());
}

TEST(MpiCommunicator, NamesTheRanksThatStayAway) {
  const auto part = mpi_world().split(0, 0);
  const int last = part->size() - 1;
  if (last == 0) return;  // nobody to miss
  std::vector<int> missing;
  if (part->rank() != last) missing = part->missing_after(std::chrono::milliseconds(300));
  EXPECT_EQ(missing, part->rank() == last ? std::vector<int>{} : std::vector<int>{last});
  mpi_world().barrier();
}

}  // namespace
}  // namespace ablate::test
