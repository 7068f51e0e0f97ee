#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace ablate {

/// What making a batch consists of.
enum class LoadStage { Read, Decode, Augment, Copy };
inline constexpr std::array<std::string_view, 4> kLoadStageNames{"read", "decode", "augment",
                                                                 "copy"};

/// Seconds by stage, of all loader threads together.
struct StageSeconds {
  std::array<double, kLoadStageNames.size()> of{};

  double sum() const {
    double total = 0;
    for (const double seconds : of) total += seconds;
    return total;
  }
  StageSeconds& operator+=(const StageSeconds& other) {
    for (std::size_t i = 0; i < of.size(); ++i) of[i] += other.of[i];
    return *this;
  }
};

/// Adds up what the threads of a loader spend.
class StageClock {
 public:
  void add(LoadStage stage, std::chrono::nanoseconds spent) {
    spent_[static_cast<std::size_t>(stage)].fetch_add(spent.count(), std::memory_order_relaxed);
  }
  /// Since the last call.
  StageSeconds take() {
    StageSeconds seconds;
    for (std::size_t i = 0; i < spent_.size(); ++i) {
      seconds.of[i] = 1e-9 * static_cast<double>(spent_[i].exchange(0, std::memory_order_relaxed));
    }
    return seconds;
  }

 private:
  std::array<std::atomic<std::int64_t>, kLoadStageNames.size()> spent_{};
};

/// Splits the time of one thread into stages.
class StageTimer {
 public:
  explicit StageTimer(StageClock& clock) : clock_(clock) {}
  /// What went by since the last call, or since the timer began, was this stage.
  void was(LoadStage stage) {
    const auto now = std::chrono::steady_clock::now();
    clock_.add(stage, now - last_);
    last_ = now;
  }

 private:
  StageClock& clock_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace ablate
