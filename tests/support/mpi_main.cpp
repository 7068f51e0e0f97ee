#include <gtest/gtest.h>

#include "tests/support/mpi_world.h"

namespace ablate::test {
namespace {

Communicator* world = nullptr;

}  // namespace

Communicator& mpi_world() { return *world; }

}  // namespace ablate::test

/// The main of tests that run under mpirun: every rank runs every test, rank 0 reports and writes
/// the result file, other ranks print failures only, and all ranks exit with the worst status.
int main(int argc, char** argv) {
  ablate::MpiSession session;
  ablate::test::world = &session.world();
  ::testing::InitGoogleTest(&argc, argv);
  if (session.world().rank() != 0) {
    GTEST_FLAG_SET(brief, true);
    GTEST_FLAG_SET(output, "");
  }
  const std::int64_t status = RUN_ALL_TESTS();
  return static_cast<int>(session.world().all_reduce(status, ablate::ReduceOp::Max));
}
