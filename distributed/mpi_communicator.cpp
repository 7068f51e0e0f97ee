// MPI ranks on host memory. All MPI calls after initialisation are made by one communication
// thread, which takes operations from one queue, in the order in which the rank submitted them.
//
// Bitwise equality. The standard only recommends that MPI_Allreduce gives equal results for equal
// arguments, so this rests on Open MPI: its non-blocking collectives (component coll/libnbc, the
// only reductions used here) compile a fixed schedule from rank, size, count and type. Which
// partial sums are added never depends on arrival, hence equal bits from call to call. On all ranks
// the bits are equal because in every algorithm (binomial reduce + broadcast, ring, reduce-scatter
// + all-gather) each element is reduced at one place and copied, and in recursive doubling both
// partners add the same two numbers, which commutes. Components that replace libnbc (hcoll, ucc
// with in-network reduction) promise none of this: switch them off (OMPI_MCA_coll_hcoll_enable=0).
#include <algorithm>
#include <chrono>
#include <climits>
#include <exception>
#include <functional>
#include <thread>

#include <mpi.h>
#include <sched.h>

#include "distributed/communication_thread.h"
#include "distributed/host_communicator.h"
#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/torch/torch.h"

namespace ablate {
// Not anonymous: MpiSession::State, which the header declares, is made of these.
namespace mpi {

using std::chrono::steady_clock;

/// How long a failing rank waits for its peers before it ends the job.
constexpr std::chrono::seconds kGrace{5};

void check_mpi(int status, std::string_view what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw TransientError(cat("MPI: ", what, ": ", std::string_view(text, std::size_t(length))));
}

/// The requests under way and the thread that polls them.
class MpiEngine {
 public:
  explicit MpiEngine(bool crowded) : thread_([this] { return poll(); }, crowded) {}

  /// `start` leaves a null request when it has done everything itself.
  std::shared_ptr<CommunicationThread::Operation> submit(std::string what,
                                                         std::function<void(MPI_Request&)> start) {
    return thread_.submit(std::move(what), [this, start = std::move(start)] {
      requests_.push_back(MPI_REQUEST_NULL);
      start(requests_.back());
    });
  }
  void wait(const CommunicationThread::Operation& operation) { thread_.wait(operation); }
  bool stop() { return thread_.stop(kGrace); }

 private:
  std::size_t poll() {
    if (requests_.empty()) return 0;
    indices_.resize(requests_.size());
    int count = 0;
    check_mpi(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                           indices_.data(), MPI_STATUSES_IGNORE),
              "MPI_Testsome");
    const auto pending = std::find_if(requests_.begin(), requests_.end(),
                                      [](MPI_Request r) { return r != MPI_REQUEST_NULL; });
    const auto finished = static_cast<std::size_t>(pending - requests_.begin());
    requests_.erase(requests_.begin(), pending);
    return finished;
  }

  std::vector<MPI_Request> requests_;  // oldest first; of the thread alone
  std::vector<int> indices_;
  CommunicationThread thread_;
};

MPI_Op to_mpi(ReduceOp op) {
  if (op == ReduceOp::Sum) return MPI_SUM;
  return op == ReduceOp::Min ? MPI_MIN : MPI_MAX;
}

MPI_Datatype to_mpi(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kLong:
      return MPI_INT64_T;
    default:
      return MPI_UINT8_T;
  }
}

int mpi_count(std::int64_t count, std::string_view what) {
  ABLATE_CHECK(count <= INT_MAX, what, " of ", count, " elements; MPI takes up to ", INT_MAX);
  return static_cast<int>(count);
}

class MpiWork final : public Work {
 public:
  MpiWork(std::shared_ptr<MpiEngine> engine,
          std::shared_ptr<CommunicationThread::Operation> operation)
      : engine_(std::move(engine)), operation_(std::move(operation)) {}
  void wait() override { engine_->wait(*operation_); }

 private:
  std::shared_ptr<MpiEngine> engine_;
  std::shared_ptr<CommunicationThread::Operation> operation_;
};

/// MPI_Comm_free is collective, so a communicator of a failed rank could not free its own: they are
/// few (one a split) and MPI_Finalize releases them.
class MpiCommunicator final : public HostCommunicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiEngine> engine, MPI_Comm comm)
      : engine_(std::move(engine)), comm_(comm) {
    run("MPI_Comm_rank", [this](MPI_Request&) {
      check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
      check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    });
  }
  using HostCommunicator::all_gather;
  using HostCommunicator::broadcast;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "mpi"; }

  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp op) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_gather(const at::Tensor& tensor, at::Tensor& all) override;
  std::vector<int> missing_after(std::chrono::milliseconds patience) override;
  std::unique_ptr<Communicator> split(int color, int key) override;

 private:
  std::shared_ptr<CommunicationThread::Operation> submit(std::string_view name,
                                                         std::function<void(MPI_Request&)> start) {
    return engine_->submit(cat(name, " on rank ", rank_, " of ", size_), std::move(start));
  }
  void run(std::string_view name, std::function<void(MPI_Request&)> start) {
    engine_->wait(*submit(name, std::move(start)));
  }

  std::shared_ptr<MpiEngine> engine_;
  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
};

std::unique_ptr<Work> MpiCommunicator::start_all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_reducible(tensor, "all_reduce");
  const int count = mpi_count(tensor.numel(), "all_reduce");
  auto start = [tensor, count, op, comm = comm_](MPI_Request& request) {
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, tensor.data_ptr(), count, to_mpi(tensor.scalar_type()),
                             to_mpi(op), comm, &request),
              "MPI_Iallreduce");
  };
  return std::make_unique<MpiWork>(engine_, submit(cat("all_reduce of ", count), std::move(start)));
}

void MpiCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_movable(tensor, "broadcast");
  check_root(root);
  const int bytes = mpi_count(static_cast<std::int64_t>(tensor.nbytes()), "broadcast");
  run(cat("broadcast of ", bytes, " bytes"), [=, comm = comm_](MPI_Request& request) {
    check_mpi(MPI_Ibcast(tensor.data_ptr(), bytes, MPI_BYTE, root, comm, &request), "MPI_Ibcast");
  });
}

void MpiCommunicator::all_gather(const at::Tensor& tensor, at::Tensor& all) {
  check_gather(tensor, all);
  const int bytes = mpi_count(static_cast<std::int64_t>(tensor.nbytes()), "all_gather");
  run(cat("all_gather of ", bytes, " bytes"),
      [tensor, all, bytes, comm = comm_](MPI_Request& request) {
        check_mpi(MPI_Iallgather(tensor.const_data_ptr(), bytes, MPI_BYTE, all.data_ptr(), bytes,
                                 MPI_BYTE, comm, &request),
                  "MPI_Iallgather");
      });
}

namespace {

/// Messages without content from every rank to every other, because no collective of MPI tells who
/// is missing.
struct RollCall {
  std::vector<MPI_Request> from, to;  // by rank; null once here, or sent
  bool all_here = false;

  void start(MPI_Comm comm, int me, int size) {
    constexpr int kTag = 1;
    from.assign(static_cast<std::size_t>(size), MPI_REQUEST_NULL);
    to = from;
    for (int r = 0; r < size; ++r) {
      if (r == me) continue;
      const auto i = static_cast<std::size_t>(r);
      check_mpi(MPI_Irecv(nullptr, 0, MPI_BYTE, r, kTag, comm, &from[i]), "MPI_Irecv");
      check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, r, kTag, comm, &to[i]), "MPI_Isend");
    }
  }

  void look() {
    all_here = true;
    for (auto* requests : {&from, &to}) {
      for (MPI_Request& request : *requests) {
        int done = 0;
        check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        all_here = all_here && done != 0;
      }
    }
  }
};

}  // namespace

std::vector<int> MpiCommunicator::missing_after(std::chrono::milliseconds patience) {
  const auto deadline = steady_clock::now() + patience;
  auto call = std::make_shared<RollCall>();
  run("arrival", [call, comm = comm_, me = rank_, size = size_](MPI_Request&) {
    call->start(comm, me, size);
    call->look();
  });
  while (!call->all_here && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    run("arrival", [call](MPI_Request&) { call->look(); });
  }
  std::vector<int> missing;
  for (int r = 0; r < size_; ++r) {
    if (call->from[static_cast<std::size_t>(r)] != MPI_REQUEST_NULL) missing.push_back(r);
  }
  return missing;
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  // MPI takes non-negative colours only; ours are any: number them by their order.
  at::Tensor all = at::empty({size_}, at::kLong);
  all_gather(at::scalar_tensor(color, at::kLong), all);
  const auto colors = all.accessor<std::int64_t, 1>();
  int number = 0;
  while (colors[number] != color) ++number;
  MPI_Comm part = MPI_COMM_NULL;
  run("split", [&part, number, key, comm = comm_](MPI_Request&) {
    check_mpi(MPI_Comm_split(comm, number, key, &part), "MPI_Comm_split");
  });
  return std::make_unique<MpiCommunicator>(engine_, part);
}

/// MPI_Init and its end.
class MpiLife {
 public:
  MpiLife() {
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    try {
      if (provided < MPI_THREAD_SERIALIZED) {
        throw TransientError("this MPI has no thread support (MPI_THREAD_SERIALIZED)");
      }
      check_world_size(size);
    } catch (...) {
      MPI_Finalize();
      throw;
    }
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &goodbye_), "MPI_Comm_dup");
  }

  /// Whether all ranks come here within kGrace.
  bool all_leave() {
    MPI_Request request = MPI_REQUEST_NULL;
    int done = MPI_Ibarrier(goodbye_, &request) == MPI_SUCCESS ? 0 : -1;
    const auto deadline = steady_clock::now() + kGrace;
    while (done == 0 && steady_clock::now() < deadline) {
      if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return done == 1;
  }

 private:
  MPI_Comm goodbye_ = MPI_COMM_NULL;
};

/// Whether the ranks of this host run more threads (one that computes, one that communicates) than
/// they have cores, or the launcher bound both threads to one core.
bool is_crowded() {
  MPI_Comm local = MPI_COMM_NULL;
  int neighbours = 1;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local),
            "MPI_Comm_split_type");
  MPI_Comm_size(local, &neighbours);
  MPI_Comm_free(&local);
  cpu_set_t mine;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof mine, &mine);
  return CPU_COUNT(&mine) < 2 ||
         2U * static_cast<unsigned>(neighbours) > std::thread::hardware_concurrency();
}

}  // namespace mpi

struct MpiSession::State {
  mpi::MpiLife life;
  int exceptions = std::uncaught_exceptions();
  std::shared_ptr<mpi::MpiEngine> engine = std::make_shared<mpi::MpiEngine>(mpi::is_crowded());
  mpi::MpiCommunicator world{engine, MPI_COMM_WORLD};

  ~State() {
    const bool unwinding = std::uncaught_exceptions() > exceptions;
    const bool finished = engine->stop();
    if (finished && (!unwinding || life.all_leave())) {
      MPI_Finalize();
      return;
    }
    log_error("a rank leaves while others need it: ending all ranks");
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::Transient));
  }
};

MpiSession::MpiSession() : state_(std::make_unique<State>()) {}
MpiSession::~MpiSession() = default;

Communicator& MpiSession::world() { return state_->world; }

bool MpiSession::all_leave() { return state_->engine->stop() && state_->life.all_leave(); }

void MpiSession::abort(int exit_code) {
  // From the caller's thread: the communication thread may be inside a call that never returns.
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();
}

std::string mpi_library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  return text;  // Open MPI counts the final zero as part of the length
}

}  // namespace ablate
