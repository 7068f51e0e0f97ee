#include <mpi.h>

#include <gtest/gtest.h>

/// The main of tests that run under mpirun: every rank runs every test, rank 0 reports in full,
/// other ranks report failures only, and all ranks exit with the worst status.
int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  ::testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  GTEST_FLAG_SET(brief, rank != 0);

  int status = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &status, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return status;
}
