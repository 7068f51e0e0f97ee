#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <signal.h>

namespace ablate {

/// While it lives, TERM, INT, USR1, USR2 and HUP mean "stop soon" to every StopSignal of the
/// process: the handler does nothing but set a flag. A second INT ends the process at once with
/// 130, unless it is only to be counted. A HUP that is ignored at the start (nohup) stays ignored.
/// One object at a time.
class StopHandlers {
 public:
  enum class SecondInterrupt { Exit, Count };

  explicit StopHandlers(SecondInterrupt second = SecondInterrupt::Exit);
  ~StopHandlers();
  StopHandlers(const StopHandlers&) = delete;
  StopHandlers& operator=(const StopHandlers&) = delete;

  /// INT signals since the handlers were installed.
  static int interrupts();

  static constexpr std::array<int, 5> kSignals = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP};

 private:
  std::array<struct sigaction, kSignals.size()> previous_{};
};

struct StopOptions {
  std::filesystem::path stop_file;  ///< the run stops when this file exists; empty: none
  std::optional<std::chrono::system_clock::time_point> deadline;
  /// Network file systems are not asked more often than this.
  std::chrono::milliseconds file_interval{500};
};

/// Whether a run was asked to stop soon: by a signal, a stop file, a wall-clock deadline or a call.
/// Once asked, always asked. Thread-safe.
class StopSignal {
 public:
  explicit StopSignal(StopOptions options = {}) : options_(std::move(options)) {}

  bool requested();
  /// "signal SIGTERM", "stop file PATH", "deadline", or what request() was given; empty before.
  std::string reason() const;
  /// Asks from within the process. The first reason stays.
  void request(const std::string& reason);

 private:
  bool stop_file_exists();

  const StopOptions options_;
  std::atomic<bool> requested_{false};
  std::atomic<std::int64_t> next_file_check_{0};  // steady clock, nanoseconds
  mutable std::mutex mutex_;
  std::string reason_;
};

}  // namespace ablate
