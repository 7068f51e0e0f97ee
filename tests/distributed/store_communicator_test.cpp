#include <thread>

#include <gtest/gtest.h>

#include "tests/distributed/communicator_contract.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {
namespace {

using std::chrono::milliseconds;

/// Runs `body` on `size` threads, each with a session of its own; returns what each threw.
std::vector<std::string> run_sessions(int size, const std::function<void(Communicator&)>& body) {
  const TempFolder folder;
  std::vector<std::string> failures(static_cast<std::size_t>(size));
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        StoreSession session({.rank = rank, .size = size, .folder = folder.path()});
        body(session.world());
      } catch (const std::exception& error) {
        failures[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  threads.clear();
  return failures;
}

class StoreCommunicator : public ::testing::TestWithParam<int> {};

TEST_P(StoreCommunicator, HoldsTheContract) {
  const auto failures = run_sessions(GetParam(), [](Communicator& comm) {
    EXPECT_EQ(comm.backend(), "store");
    contract::holds(comm);
  });
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
}

INSTANTIATE_TEST_SUITE_P(Sizes, StoreCommunicator, ::testing::Values(1, 2, 4));

TEST(StoreSession, ARankThatStaysAwayIsNamed) {
  const TempFolder folder;
  try {
    StoreSession({.rank = 0, .size = 3, .folder = folder.path(), .patience = milliseconds(200)});
    FAIL() << "two ranks were missing";
  } catch (const TransientError& error) {
    EXPECT_STREQ(error.what(), "rank 0 of 3: rank 1, 2 did not come within 0.2 s");
  }
}

TEST(StoreSession, WithoutRankZeroThePlaceIsNamed) {
  const TempFolder folder;
  try {
    StoreSession({.rank = 1, .size = 2, .folder = folder.path(), .patience = milliseconds(100)});
    FAIL() << "nobody had opened the store";
  } catch (const TransientError& error) {
    EXPECT_NE(std::string(error.what()).find(folder.path().string()), std::string::npos)
        << error.what();
  }
}

TEST(StoreSession, EveryJobNeedsAFolderOfItsOwn) {
  const TempFolder folder;
  const StoreSession first({.rank = 0, .size = 1, .folder = folder.path()});
  EXPECT_THROW(StoreSession({.rank = 0, .size = 1, .folder = folder.path()}), TransientError);
}

TEST(StoreSession, AFailingRankReleasesItsPeers) {
  const auto failures = run_sessions(3, [](Communicator& comm) {
    if (comm.rank() == 1) throw std::runtime_error("disk on fire");
    comm.barrier();
  });
  EXPECT_EQ(failures[1], "disk on fire");
  for (const std::size_t rank : {0U, 2U}) {
    EXPECT_NE(failures[rank].find("rank 1 has failed"), std::string::npos) << failures[rank];
  }
}

TEST(StoreSession, RanksThatDisagreeOnACollectiveAreToldSo) {
  const auto failures = run_sessions(2, [](Communicator& comm) {
    at::Tensor tensor = at::zeros({comm.rank() + 1});
    comm.all_reduce(tensor);
  });
  for (const std::string& failure : failures) {
    EXPECT_NE(failure.find("ranks disagree"), std::string::npos) << failure;
  }
}

}  // namespace
}  // namespace ablate::test
