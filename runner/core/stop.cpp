#include "runner/core/stop.h"

#include <unistd.h>

#include "runner/core/error.h"

namespace ablate {

namespace {

// Signals belong to the process, so their flags must too. Lock-free, hence usable in a handler.
std::atomic<int> received_signal{0};
std::atomic<int> interrupt_count{0};
std::atomic<bool> exit_on_second{true};
std::atomic<bool> installed{false};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr int kInterruptedStatus = 128 + SIGINT;

extern "C" void ablate_on_stop_signal(int signal) {
  if (signal == SIGINT && interrupt_count.fetch_add(1) > 0 && exit_on_second) {
    ::_exit(kInterruptedStatus);
  }
  int none = 0;
  received_signal.compare_exchange_strong(none, signal);
}

std::string signal_name(int signal) {
  switch (signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    default:
      return "SIGHUP";
  }
}

}  // namespace

int StopHandlers::interrupts() { return interrupt_count; }

StopHandlers::StopHandlers(SecondInterrupt second) {
  ABLATE_CHECK(!installed.exchange(true), "stop handlers are installed already");
  received_signal = 0;
  interrupt_count = 0;
  exit_on_second = second == SecondInterrupt::Exit;
  struct sigaction action {};
  action.sa_handler = &ablate_on_stop_signal;
  action.sa_flags = SA_RESTART;  // libraries that we call do not expect EINTR
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ABLATE_CHECK(::sigaction(kSignals[i], nullptr, &previous_[i]) == 0);
    const bool under_nohup = kSignals[i] == SIGHUP && previous_[i].sa_handler == SIG_IGN;
    if (!under_nohup) ABLATE_CHECK(::sigaction(kSignals[i], &action, nullptr) == 0);
  }
}

StopHandlers::~StopHandlers() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &previous_[i], nullptr);
  }
  received_signal = 0;
  installed = false;
}

bool StopSignal::requested() {
  if (requested_) return true;
  if (const int signal = received_signal; signal != 0) {
    request(cat("signal ", signal_name(signal)));
  } else if (options_.deadline && std::chrono::system_clock::now() >= *options_.deadline) {
    request("deadline");
  } else if (stop_file_exists()) {
    request(cat("stop file ", options_.stop_file.string()));
  }
  return requested_;
}

std::string StopSignal::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void StopSignal::request(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (requested_) return;
  reason_ = reason;
  requested_ = true;
}

bool StopSignal::stop_file_exists() {
  if (options_.stop_file.empty()) return false;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  std::int64_t due = next_file_check_;
  const std::int64_t now_ns = std::chrono::nanoseconds(now).count();
  const std::int64_t next = now_ns + std::chrono::nanoseconds(options_.file_interval).count();
  if (now_ns < due || !next_file_check_.compare_exchange_strong(due, next)) return false;
  return ::access(options_.stop_file.c_str(), F_OK) == 0;
}

}  // namespace ablate
