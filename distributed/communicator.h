#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
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
  /// A barrier that gives up: waits until all ranks have called it, for at most `patience`, and
  /// returns those that have not, ascending. After a non-empty result the ranks are out of step:
  /// the only use left is to report it.
  virtual std::vector<int> missing_after(std::chrono::milliseconds patience) = 0;

  /// The communicator of all ranks that pass the same colour, ordered by (key, old rank).
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // For devices, which work behind the host's back. Host communicators have nothing to do here.
  /// A step with collectives of this communicator has been enqueued; several may be under way. When
  /// step_finished() does not follow in time, it counts as hanging and the communicator is aborted.
  virtual void step_begun(std::int64_t /*step*/) {}
  /// The device has done all steps up to `step`. Throws TransientError, naming rank, step and last
  /// collective, when the communicator failed or was aborted meanwhile.
  virtual void step_finished(std::int64_t /*step*/) {}
  /// Whoever captures collectives into a CUDA graph keeps this until the graph is reset: NCCL
  /// waits for its graphs when it ends, so it must not end before them.
  virtual std::shared_ptr<void> hold() { return nullptr; }
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

struct NcclOptions {
  /// Reduction in NVLink switches: faster on eight devices, but not bitwise equal between calls on
  /// Hopper. NCCL_NVLS_ENABLE in the environment has the last word.
  bool nvls = false;
  /// Ranks arrive late at start-up (data, compilation), until the first step; then all are in the
  /// same one.
  std::chrono::milliseconds init_timeout = std::chrono::minutes(15);
  /// A step, or a collective outside one, that takes longer hangs.
  std::chrono::milliseconds step_timeout = std::chrono::minutes(2);
};

/// Collectives on tensors of CUDA device `device` over the ranks of `host`, by NCCL; host values go
/// through `host`, which must outlive the result. Collective. Only in builds with NCCL
/// (ABLATE_HAS_NCCL). Also takes bfloat16. Collectives may be captured into CUDA graphs, after
/// hold(). Throws TransientError on a failure or a time-out of the initialisation, naming the ranks
/// that did not come.
///
/// A thread of its own watches for errors of the transport and for what hangs; on either it
/// aborts the communicator, so that whoever waits for the device comes back, and the next call
/// throws TransientError. When nobody comes back the process ends with ExitCode::Transient.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device,
                                                     const NcclOptions& options = {});

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

/// Where ranks meet that were started without MPI.
struct Rendezvous {
  int rank = 0;
  int size = 1;
  std::filesystem::path folder{};  ///< shared and empty: rank 0 leaves its address there
  std::string host{};              ///< else the address of rank 0's store
  int port = 0;
  bool store_runs = false;  ///< the launcher keeps a store there already
  std::chrono::milliseconds patience = std::chrono::minutes(5);  ///< for ranks that come late
};

/// Ranks that talk through a key-value store on rank 0 (LibTorch's TCPStore): for machines without
/// MPI. Meant for host values and rendezvous; gradients of small models pass, but every rank sends
/// to every other through one process.
///
/// The constructor waits for all ranks and throws TransientError naming those that did not come.
/// The destructor tells the others when an exception is leaving, so that their collectives throw
/// TransientError; report errors inside the life of the session.
class StoreSession {
 public:
  explicit StoreSession(const Rendezvous& rendezvous);
  ~StoreSession();
  StoreSession(const StoreSession&) = delete;
  StoreSession& operator=(const StoreSession&) = delete;

  Communicator& world();

  /// As MpiSession::all_leave().
  bool all_leave();

  /// Makes the other ranks' collectives throw and ends this process at once, without unwinding.
  [[noreturn]] void abort(int exit_code);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "Open MPI v4.1.4, ...": for the record of an attempt.
std::string mpi_library_version();

}  // namespace ablate
