#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "distributed/communicator.h"
#include "distributed/nccl_trace.h"

struct ncclComm;  // of nccl.h, which only nccl_*.cpp include

namespace ablate {

/// The life of one NCCL communicator: start, supervision, end. Shared by the Communicator and by
/// whoever holds captured graphs; the last to let go ends it.
///
/// Non-blocking, because only such a communicator can be aborted at any time; every call is
/// therefore followed by waiting until NCCL has taken it over.
class NcclCore {
 public:
  /// Collective. Throws TransientError naming ranks that did not come.
  NcclCore(Communicator& host, int device, const NcclOptions& options, const NcclTrace& trace);
  ~NcclCore();
  NcclCore(const NcclCore&) = delete;
  NcclCore& operator=(const NcclCore&) = delete;

  /// Makes one call of NCCL, given as ncclResult_t. Throws TransientError when it fails, or when
  /// the communicator was aborted before.
  void call(std::string_view what, const std::function<int(ncclComm*)>& make);
  /// Throws TransientError, after an abort, when anything enqueued so far has failed.
  void check_health();

  void step_begun(std::int64_t step);
  void step_finished(std::int64_t step);

 private:
  using Clock = NcclTrace::Clock;
  using Lock = std::unique_lock<std::mutex>;

  void meet(Communicator& host) const;
  void watch();
  std::string find_trouble();
  std::string find_hang() const;
  bool settle(std::chrono::milliseconds timeout);
  void check(int status, std::string_view what);
  void abort(const std::string& failure);
  [[noreturn]] void fail(std::string_view what, std::string_view why);
  void throw_if_failed();
  void end_in_order();

  const int rank_, size_, device_;
  const NcclOptions options_;
  const NcclTrace& trace_;
  const int exceptions_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  ncclComm* comm_ = nullptr;  // null after an abort
  std::string failure_;
  bool noticed_ = false;  // the failure was thrown at somebody
  bool leaving_ = false;
  std::optional<std::int64_t> step_;  // the oldest under way
  std::int64_t newest_step_ = 0;
  bool started_ = false;  // there was a step
  Clock::time_point step_since_;
  std::thread aborting_;
  std::thread watching_;  // last: starts when all else exists
};

}  // namespace ablate
