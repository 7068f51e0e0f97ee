#include <atomic>
#include <cstdlib>
#include <map>
#include <stdexcept>

#include <gtest/gtest.h>

#include "distributed/communication_thread.h"
#include "distributed/launcher.h"
#include "tests/distributed/communicator_contract.h"
#include "tests/support/run_ranks.h"

namespace ablate::test {
namespace {

TEST(SelfCommunicator, HoldsTheContract) {
  const auto comm = make_self_communicator();
  EXPECT_EQ(comm->size(), 1);
  contract::holds(*comm);
}

class ThreadCommunicator : public ::testing::TestWithParam<int> {};

TEST_P(ThreadCommunicator, HoldsTheContract) {
  run_ranks(GetParam(), [](Communicator& comm) { contract::holds(comm); });
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCommunicator, ::testing::Values(1, 2, 4));

TEST(ThreadCommunicatorTest, ReducesInRankOrder) {
  // 2^24 + 1 is not a float: only (2^24 + -2^24) + 1 gives 1.
  run_ranks(3, [](Communicator& comm) {
    const float big = 16777216.0F;
    at::Tensor tensor = at::full({1}, comm.rank() == 0 ? big : comm.rank() == 1 ? -big : 1.0F);
    comm.all_reduce(tensor);
    EXPECT_EQ(tensor.item<float>(), 1.0F);
  });
}

TEST(ThreadCommunicatorTest, AFailingRankReleasesItsPeers) {
  std::atomic<int> released = 0;
  const auto body = [&](Communicator& comm) {
    if (comm.rank() == 1) throw std::runtime_error("disk on fire");
    at::Tensor tensor = at::ones({8});
    try {
      if (comm.rank() == 2) {
        comm.start_all_reduce(tensor)->wait();
      } else {
        comm.all_reduce(tensor);
      }
    } catch (const TransientError&) {
      ++released;
      throw;
    }
  };
  try {
    run_ranks(4, body);
    FAIL() << "the failure of rank 1 was lost";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "disk on fire");
  }
  EXPECT_EQ(released, 3);
}

TEST(ThreadCommunicatorTest, AnAbortReachesGroupsThatWereSplitOff) {
  EXPECT_THROW(run_ranks(4,
                         [](Communicator& comm) {
                           const auto part = comm.split(comm.rank() / 2, 0);
                           if (comm.rank() == 3) throw std::logic_error("rank 3");
                           // Ranks 0 and 1 have all they need in their own part.
                           part->barrier();
                           comm.barrier();
                         }),
               std::logic_error);
}

TEST(ThreadCommunicatorTest, DifferentCollectivesAreABugNotADeadlock) {
  try {
    run_ranks(2, [](Communicator& comm) {
      at::Tensor tensor = at::zeros({comm.rank() + 1});
      comm.all_reduce(tensor);
    });
    FAIL() << "accepted";
  } catch (const BugError& error) {
    EXPECT_NE(std::string(error.what()).find("all_reduce of 2 Float"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("all_reduce of 1 Float"), std::string::npos);
  }
}

TEST(ThreadCommunicatorTest, NamesTheRanksThatStayAway) {
  run_ranks(4, [](Communicator& comm) {
    if (comm.rank() % 2 == 1) return;
    EXPECT_EQ(comm.missing_after(std::chrono::milliseconds(200)), (std::vector<int>{1, 3}));
  });
}

TEST(CommunicationThread, StartsInOrderAndFinishesTheOldestFirst) {
  std::vector<int> started;
  std::atomic<std::size_t> allowed = 0;
  std::size_t handed_out = 0;
  CommunicationThread thread(
      [&] {
        const std::size_t now = std::min<std::size_t>(allowed, started.size());
        const std::size_t fresh = now - handed_out;
        handed_out = now;
        return fresh;
      },
      true);
  const auto first = thread.submit("first", [&] { started.push_back(1); });
  const auto second = thread.submit("second", [&] { started.push_back(2); });
  allowed = 1;
  thread.wait(*first);
  allowed = 2;
  thread.wait(*second);
  EXPECT_TRUE(thread.stop(std::chrono::seconds(10)));
  EXPECT_EQ(started, (std::vector{1, 2}));
  EXPECT_THROW(thread.submit("late", [] {}), BugError);
}

TEST(CommunicationThread, AFailureReachesAllCallers) {
  CommunicationThread thread([]() -> std::size_t { return 0; }, true);
  const auto stuck = thread.submit("stuck", [] {});
  const auto broken = thread.submit("broken", [] { throw std::runtime_error("link down"); });
  try {
    thread.wait(*stuck);
    FAIL() << "no failure";
  } catch (const TransientError& error) {
    EXPECT_STREQ(error.what(), "stuck: link down");
  }
  EXPECT_THROW(thread.wait(*broken), TransientError);
  EXPECT_THROW(thread.submit("after", [] {}), TransientError);
  EXPECT_FALSE(thread.stop(std::chrono::seconds(0)));
}

/// Sets environment variables for one test and puts back what was there.
class Launcher : public ::testing::Test {
 protected:
  Launcher() {
    for (const char* name : kNames) {
      const char* value = std::getenv(name);
      saved_.emplace_back(value != nullptr, value != nullptr ? value : "");
      ::unsetenv(name);
    }
  }
  ~Launcher() override {
    for (std::size_t i = 0; i < saved_.size(); ++i) {
      if (saved_[i].first) {
        ::setenv(kNames[i], saved_[i].second.c_str(), 1);
      } else {
        ::unsetenv(kNames[i]);
      }
    }
  }

 private:
  static constexpr const char* kNames[] = {"OMPI_COMM_WORLD_SIZE",
                                           "SLURM_STEP_ID",
                                           "SLURM_STEP_NUM_TASKS",
                                           "SLURM_NTASKS",
                                           "RANK",
                                           "WORLD_SIZE",
                                           "MASTER_ADDR",
                                           "MASTER_PORT",
                                           "ABLATE_RENDEZVOUS",
                                           "ABLATE_RANKS",
                                           "SLURM_PROCID",
                                           "SLURM_JOB_ID",
                                           "PMIX_RANK",
                                           "SLURM_STEP_NODELIST",
                                           "TORCHELASTIC_USE_AGENT_STORE"};
  std::vector<std::pair<bool, std::string>> saved_;
};

TEST_F(Launcher, AloneOrInTheShellOfAnAllocationNothingIsPromised) {
  EXPECT_FALSE(started_by_launcher());
  ::setenv("SLURM_NTASKS", "8", 1);
  EXPECT_FALSE(started_by_launcher());
  EXPECT_NO_THROW(check_world_size(1));
}

TEST_F(Launcher, SrunPromisesTheTasksOfTheStep) {
  ::setenv("SLURM_STEP_ID", "0", 1);
  ::setenv("SLURM_NTASKS", "8", 1);
  EXPECT_EQ(promised_world_size(), 8);
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  EXPECT_EQ(promised_world_size(), 4);
  EXPECT_NO_THROW(check_world_size(4));
  try {
    check_world_size(1);
    FAIL() << "singletons accepted";
  } catch (const TransientError& error) {
    EXPECT_NE(std::string(error.what()).find("--mpi=pmix"), std::string::npos);
  }
}

TEST_F(Launcher, RanksWithoutMpiMeetInAFolderOrAtAnAddress) {
  EXPECT_FALSE(rendezvous_of_environment());
  ::setenv("RANK", "1", 1);
  ::setenv("WORLD_SIZE", "4", 1);
  EXPECT_FALSE(rendezvous_of_environment()) << "no place to meet";
  ::setenv("MASTER_ADDR", "node7", 1);
  ::setenv("MASTER_PORT", "29500", 1);
  auto meeting = rendezvous_of_environment().value();
  EXPECT_EQ(meeting.rank, 1);
  EXPECT_EQ(meeting.size, 4);
  EXPECT_EQ(meeting.host, "node7");
  EXPECT_EQ(meeting.port, 29500);
  EXPECT_FALSE(meeting.store_runs);
  ::setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
  EXPECT_TRUE(rendezvous_of_environment()->store_runs);
  ::setenv("ABLATE_RENDEZVOUS", "/shared/job", 1);
  EXPECT_EQ(rendezvous_of_environment()->folder, "/shared/job");
  ::setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
  EXPECT_FALSE(rendezvous_of_environment()) << "mpirun starts these ranks";
}

TEST_F(Launcher, UnderSrunAPlaceToMeetIsAWishToDoWithoutMpi) {
  ::setenv("SLURM_STEP_ID", "2", 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  ::setenv("SLURM_PROCID", "3", 1);
  EXPECT_TRUE(started_by_launcher());
  EXPECT_FALSE(rendezvous_of_environment());
  ::setenv("ABLATE_RENDEZVOUS", "/shared/job", 1);
  EXPECT_FALSE(started_by_launcher());
  EXPECT_EQ(rendezvous_of_environment()->folder, "/shared/job");
  ::setenv("ABLATE_RENDEZVOUS", "tcp", 1);
  EXPECT_THROW(rendezvous_of_environment(), SpecError) << "where is the first node?";
  ::setenv("SLURM_JOB_ID", "71", 1);
  for (const auto& [list, host] :
       std::map<std::string, std::string>{{"n7", "n7"},
                                          {"n[03-05,9],m1", "n03"},
                                          {"a1,b[2-3]", "a1"},
                                          {"gpu-x[12]", "gpu-x12"},
                                          {"r[1-2]n[3-5,9],m1", "r1n3"}}) {
    ::setenv("SLURM_STEP_NODELIST", list.c_str(), 1);
    const auto meeting = rendezvous_of_environment().value();
    EXPECT_EQ(meeting.host, host);
    EXPECT_EQ(meeting.rank, 3);
    EXPECT_EQ(meeting.size, 4);
    EXPECT_TRUE(meeting.folder.empty());
    EXPECT_GE(meeting.port, 1024);
    EXPECT_LT(meeting.port, 32'768) << "below the ephemeral ports";
  }
  const int port = rendezvous_of_environment()->port;
  ::setenv("SLURM_STEP_ID", "3", 1);
  EXPECT_NE(rendezvous_of_environment()->port, port) << "steps of one job side by side";
}

TEST_F(Launcher, RanksWithoutAProcessManagerAreToldWhatToDo) {
  ::setenv("SLURM_STEP_ID", "0", 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  EXPECT_TRUE(started_by_launcher());
  try {
    check_process_manager();
    FAIL() << "MPI would end this process";
  } catch (const TransientError& error) {
    const std::string what = error.what();
    for (const char* fix : {"4 ranks", "--mpi=pmix", "mpirun", "ABLATE_RENDEZVOUS"}) {
      EXPECT_NE(what.find(fix), std::string::npos) << what;
    }
  }
  ::setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  EXPECT_FALSE(started_by_launcher()) << "one rank has nobody to find";
  ::setenv("PMIX_RANK", "0", 1);
  EXPECT_TRUE(started_by_launcher());
  EXPECT_NO_THROW(check_process_manager());
}

TEST_F(Launcher, RanksThatWereAskedForButAreNotThereAreMissed) {
  EXPECT_NO_THROW(check_asked_ranks(1));
  ::setenv("ABLATE_RANKS", "4", 1);
  EXPECT_NO_THROW(check_asked_ranks(4));
  try {
    check_asked_ranks(1);
    FAIL() << "singletons accepted";
  } catch (const SpecError& error) {
    EXPECT_NE(std::string(error.what()).find("--mpi=pmix"), std::string::npos) << error.what();
  }
}

TEST_F(Launcher, AHalfSetRendezvousIsRefused) {
  ::setenv("ABLATE_RENDEZVOUS", "/shared/job", 1);
  const auto message = [] {
    try {
      rendezvous_of_environment();
    } catch (const SpecError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(), "RANK is not set, but ABLATE_RENDEZVOUS is");
  ::setenv("RANK", "2", 1);
  ::setenv("WORLD_SIZE", "two", 1);
  EXPECT_EQ(message(), "WORLD_SIZE = \"two\" is no number, but ABLATE_RENDEZVOUS is");
  ::setenv("WORLD_SIZE", "2", 1);
  EXPECT_EQ(message(), "RANK = 2 with WORLD_SIZE = 2: ranks count from 0");
}

TEST(LocalRank, CountsTheRanksOfThisMachine) {
  run_ranks(3, [](Communicator& comm) { EXPECT_EQ(local_rank(comm), comm.rank()); });
}

TEST_F(Launcher, MpirunInsideAnAllocationCountsItsOwnRanks) {
  ::setenv("SLURM_STEP_ID", "0", 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  ::setenv("OMPI_COMM_WORLD_SIZE", "16", 1);
  EXPECT_EQ(promised_world_size(), 16);
}

}  // namespace
}  // namespace ablate::test
