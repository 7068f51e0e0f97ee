#include <gtest/gtest.h>

#include "tests/support/programs.h"
#include "tests/support/slurm.h"

namespace ablate {
namespace {

using test::run_ablate;

/// `ablate doctor --slurm` before a stand-in for Slurm and launchers that do as they are told.
class DoctorSlurm : public ::testing::Test {
 protected:
  static constexpr const char* kOneWorld = "echo 'rank 0 of 2 on n'; echo 'rank 1 of 2 on n'\n";
  static constexpr const char* kSingletons = "echo 'rank 0 of 1 on n'; echo 'rank 0 of 1 on n'\n";

  std::string doctor() { return run_ablate(folder_.path(), {"doctor", "--slurm"}).output; }
  static void expect_words(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " in\n" << text;
    }
  }

  test::TempFolder folder_;
  test::FakeSlurm slurm_;
};

TEST_F(DoctorSlurm, TakesTheFirstLauncherThatMakesOneWorld) {
  slurm_.add("srun", kOneWorld);
  slurm_.add("mpirun", kOneWorld);
  expect_words(doctor(),
               {"slurm-wlm 0.0.0", "arrays of up to 1000", "two ranks find each other by srun"});
}

TEST_F(DoctorSlurm, SingletonsAreNoWorld) {
  slurm_.add("srun", kSingletons);
  slurm_.add("mpirun", kOneWorld);
  expect_words(doctor(), {"two ranks find each other by mpirun"});
}

TEST_F(DoctorSlurm, DoesWithoutMpiWhereNoneWorks) {
  slurm_.add("srun", cat("case \"$*\" in *--mpi=none*) [ -d \"$ABLATE_RENDEZVOUS\" ] || exit 1\n",
                         kOneWorld, ";; *) exit 1 ;; esac\n"));
  slurm_.add("mpirun", "exit 1\n");
  expect_words(doctor(), {"two ranks find each other by srun without MPI", "no MPI works"});
}

TEST_F(DoctorSlurm, WithoutAnyItShowsWhatEachSaid) {
  slurm_.add("srun", "echo 'no such plugin'; exit 1\n");
  slurm_.add("mpirun", kSingletons);
  expect_words(doctor(), {"two ranks do not start", "--- srun ---", "no such plugin",
                          "--- mpirun ---", "rank 0 of 1 on n", "launch.slurm.setup"});
}

TEST_F(DoctorSlurm, AControllerThatIsDownIsNamed) {
  slurm_.be("down");
  expect_words(doctor(), {"slurmctld", "Unable to contact", "sweeps wait for it"});
}

}  // namespace
}  // namespace ablate
