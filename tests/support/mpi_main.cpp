#include <gtest/gtest.h>
#include <mpi.h>

/// The main of tests that run under mpirun: every rank runs every test, rank 0 reports and writes
/// the result file, other ranks print failures only, and all ranks exit with the worst status.
int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  ::testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) {
    GTEST_FLAG_SET(brief, true);
    GTEST_FLAG_SET(output, "");
  }

  int status = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &status, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return status;
}
