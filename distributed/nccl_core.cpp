#include "distributed/nccl_core.h"

#include <cstdlib>
#include <cstring>
#include <exception>

#include <cuda_runtime.h>
#include <nccl.h>

#include "runner/core/error.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kCallTimeout = std::chrono::minutes(2);
constexpr milliseconds kEndTimeout = std::chrono::seconds(10);
constexpr milliseconds kPollPeriod{100};
/// How long after an abort the thread that waits for the device may take to come back.
constexpr milliseconds kGrace = std::chrono::minutes(1);

double seconds(milliseconds duration) { return static_cast<double>(duration.count()) / 1e3; }

}  // namespace

NcclCore::NcclCore(Communicator& host, int device, const NcclOptions& options,
                   const NcclTrace& trace)
    : rank_(host.rank()),
      size_(host.size()),
      device_(device),
      options_(options),
      trace_(trace),
      exceptions_(std::uncaught_exceptions()) {
  setenv("NCCL_NVLS_ENABLE", options.nvls ? "1" : "0", /*replace=*/0);
  meet(host);
  ncclUniqueId id{};
  std::string text;
  if (rank_ == 0) {
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    text.assign(id.internal, sizeof id.internal);
  }
  text = host.broadcast(text, 0);
  std::memcpy(id.internal, text.data(), sizeof id.internal);
  cudaSetDevice(device_);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check(ncclCommInitRankConfig(&comm_, size_, id, rank_, &config), "initialisation");
  if (!settle(options_.init_timeout)) {
    fail("initialisation", cat("not done after ", seconds(options_.init_timeout),
                               " s, though all ranks had come; NCCL_DEBUG=INFO tells more"));
  }
  watching_ = std::thread([this] { watch(); });
}

/// NCCL itself only says that somebody is missing.
void NcclCore::meet(Communicator& host) const {
  const std::vector<int> missing = host.missing_after(options_.init_timeout);
  if (missing.empty()) return;
  std::vector<std::string> names;
  for (const int rank : missing) names.push_back(std::to_string(rank));
  throw TransientError(cat("NCCL: initialisation on rank ", rank_, " of ", size_, ": rank ",
                           join(names, ", "), " did not come within ",
                           seconds(options_.init_timeout), " s"));
}

NcclCore::~NcclCore() {
  {
    const Lock lock(mutex_);
    leaving_ = true;
    changed_.notify_all();
  }
  if (watching_.joinable()) watching_.join();
  end_in_order();
  if (aborting_.joinable()) aborting_.join();
}

void NcclCore::end_in_order() {
  if (comm_ == nullptr) return;
  try {
    // A peer may never come to the orderly end when this rank leaves by an exception.
    if (std::uncaught_exceptions() <= exceptions_) {
      check(ncclCommFinalize(comm_), "ncclCommFinalize");
      if (settle(kEndTimeout)) {
        ncclCommDestroy(comm_);
        return;
      }
    }
    abort("left in disorder");
  } catch (const TransientError&) {
    // fail() has aborted it, and a destructor has nobody to tell.
  }
}

void NcclCore::call(std::string_view what, const std::function<int(ncclComm*)>& make) {
  const Lock lock(mutex_);
  throw_if_failed();
  check(make(comm_), what);
  if (!settle(kCallTimeout)) fail(what, cat("not taken over within ", seconds(kCallTimeout), " s"));
}

void NcclCore::check_health() {
  const Lock lock(mutex_);
  throw_if_failed();
  ncclResult_t state = ncclSuccess;
  check(ncclCommGetAsyncError(comm_, &state), "an earlier collective");
  check(state, "an earlier collective");
}

void NcclCore::step_begun(std::int64_t step) {
  const Lock lock(mutex_);
  started_ = true;
  newest_step_ = step;
  if (step_) return;
  step_ = step;
  step_since_ = Clock::now();
}

void NcclCore::step_finished(std::int64_t step) {
  {
    const Lock lock(mutex_);
    step_.reset();
    if (step < newest_step_) step_ = step + 1;
    step_since_ = Clock::now();
  }
  check_health();
}

// The functions below are called with the mutex held, or while no other thread exists.

void NcclCore::throw_if_failed() {
  if (failure_.empty()) return;
  noticed_ = true;
  throw TransientError(failure_);
}

void NcclCore::check(int status, std::string_view what) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  fail(what,
       cat(ncclGetErrorString(static_cast<ncclResult_t>(status)), "; ", ncclGetLastError(comm_)));
}

void NcclCore::fail(std::string_view what, std::string_view why) {
  abort(cat("NCCL: ", what, " on rank ", rank_, " of ", size_, ": ", why));
  throw_if_failed();
  std::terminate();  // not reached: abort() has left a failure
}

/// In a thread of its own: NCCL first waits for the graphs that use the communicator, which die
/// only when the thread that waits for the device has come back and unwinds.
void NcclCore::abort(const std::string& failure) {
  failure_ = failure;
  if (comm_ == nullptr) return;
  aborting_ = std::thread([comm = comm_, device = device_] {
    cudaSetDevice(device);
    ncclCommAbort(comm);
  });
  comm_ = nullptr;
}

/// Waits until NCCL has taken over the last call; false when that takes longer than `timeout`.
bool NcclCore::settle(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &state), "progress");
    if (state == ncclSuccess) return true;
    check(state, "progress");
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

/// Makes no call of CUDA: most are forbidden to all threads while one captures.
void NcclCore::watch() {
  Lock lock(mutex_);
  while (failure_.empty()) {
    if (changed_.wait_for(lock, kPollPeriod, [this] { return leaving_; })) return;
    if (!failure_.empty()) break;
    const std::string trouble = find_trouble();
    if (trouble.empty()) continue;
    log_error(trouble);
    abort(trouble);
  }
  if (find_hang().empty()) return;  // nobody waits for the device
  if (changed_.wait_for(lock, kGrace, [this] { return leaving_ || noticed_; })) return;
  log_error("the thread that waits for the device does not come back: the process ends");
  std::_Exit(static_cast<int>(ExitCode::Transient));
}

std::string NcclCore::find_trouble() {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
  if (asked != ncclSuccess) state = asked;
  std::string what = find_hang();
  if (state != ncclSuccess && state != ncclInProgress) {
    what = cat(ncclGetErrorString(state), "; ", ncclGetLastError(comm_));
  }
  if (what.empty()) return {};
  const std::string where = step_ ? cat("step ", *step_) : std::string("between steps");
  return cat("NCCL: ", where, " on rank ", rank_, " of ", size_, ": ", what,
             "; last collective done: ", trace_.last());
}

std::string NcclCore::find_hang() const {
  const auto now = Clock::now();
  if (step_ && now - step_since_ > options_.step_timeout) {
    return cat("it has not finished within ", seconds(options_.step_timeout), " s");
  }
  const auto pending = trace_.pending();
  const milliseconds patience = started_ ? options_.step_timeout : options_.init_timeout;
  if (!pending || now - pending->since <= patience) return {};
  return cat(pending->what, " has not finished within ", seconds(patience), " s");
}

}  // namespace ablate
