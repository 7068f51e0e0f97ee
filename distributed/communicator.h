#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace at {
class Tensor;
}

namespace ablate {

enum class ReduceOp { Sum, Min, Max };

/// A collective under way. Destroying it without wait() is a bug of the caller.
class Work {
 public:
  virtual ~Work() = default;
  /// Blocks until the tensor holds the result. On a device communicator it only makes the current
  /// stream wait. Throws TransientError when the collective failed.
  virtual void wait() = 0;
};

/// Who am I among my peers, and the collectives over them. Passed by reference, never a global;
/// world size 1 is the identity, so no caller asks for the size before calling.
///
/// Every rank calls the same collectives in the same order with equal shapes and types. Tensors are
/// contiguous and live where the communicator works (host, or one device). Results are bitwise
/// equal on all ranks, and for equal inputs, size and back end bitwise equal from call to call. One
/// thread at a time; errors of the transport throw TransientError naming operation and peer.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "self", "mpi", "thread", "nccl": for messages and the run's record.
  virtual std::string backend() const = 0;

  /// In place; float32, float64, int64 or uint8.
  virtual void all_reduce(at::Tensor& tensor, ReduceOp op = ReduceOp::Sum) = 0;
  /// Starts an all-reduce that proceeds while the caller computes. The tensor must not be touched
  /// before wait(). Works complete in the order they were started.
  virtual std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor,
                                                 ReduceOp op = ReduceOp::Sum) = 0;
  /// In place, from `root` to all.
  virtual void broadcast(at::Tensor& tensor, int root = 0) = 0;
  /// `all` has one more leading dimension, of size(); row r becomes rank r's tensor.
  virtual void all_gather(const at::Tensor& tensor, at::Tensor& all) = 0;

  // Host values, for agreements and metadata; never inside a captured step.
  virtual double all_reduce(double value, ReduceOp op = ReduceOp::Sum) = 0;
  virtual std::int64_t all_reduce(std::int64_t value, ReduceOp op = ReduceOp::Sum) = 0;
  virtual std::string broadcast(const std::string& text, int root = 0) = 0;
  virtual std::vector<std::string> all_gather(const std::string& text) = 0;
  virtual void barrier() = 0;

  /// The communicator of all ranks that pass the same colour, ordered by (key, old rank).
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
};

/// World size 1.
std::unique_ptr<Communicator> make_self_communicator();

/// `size` communicators of one process, one for each thread that plays a rank (tests, packed
/// measurements). A rank that leaves by an exception must call abort_thread_group() so that its
/// peers throw TransientError instead of waiting for ever.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size);

/// Makes every rank of the group `member` belongs to (and of all groups split from the same world)
/// throw TransientError at its present or next collective.
void abort_thread_group(Communicator& member);

/// Collectives on tensors of CUDA device `device` over the ranks of `host`, by NCCL; host values go
/// through `host`, which must outlive the result. Collective. Only in builds with NCCL
/// (ABLATE_HAS_NCCL). Destroy captured graphs that use it first. Throws TransientError on a failure
/// or a time-out of the initialisation.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device);

/// MPI life cycle and the world communicator. Construct once, on the main thread, before any other
/// thread exists. Throws TransientError when the launcher promised another world size than MPI sees
/// (SLURM_NTASKS or OMPI_COMM_WORLD_SIZE against MPI_Comm_size): ranks started as singletons.
///
/// After construction one communication thread makes all MPI calls. The destructor finalizes; when
/// an exception is leaving (or collectives are unfinished) it gives the peers a few seconds to
/// leave too, and otherwise ends the whole job, because they would wait for ever: report errors
/// inside the life of the session.
class MpiSession {
 public:
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  Communicator& world();

  /// Whether the other ranks leave within a few seconds, too: for an error that all should have
  /// met. Nothing can be communicated afterwards.
  bool all_leave();

  /// Ends all ranks of the job at once, without unwinding.
  [[noreturn]] void abort(int exit_code);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "Open MPI v4.1.4, ...": for the record of an attempt.
std::string mpi_library_version();

}  // namespace ablate
