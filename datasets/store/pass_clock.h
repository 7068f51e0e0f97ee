#pragma once

#include <chrono>

#include "datasets/store/convert.h"

namespace ablate {

/// Tells how far a pass is, once a second.
class PassClock {
 public:
  PassClock(const PassHooks& hooks, std::string part, std::int64_t first, std::int64_t total)
      : hooks_(hooks), part_(std::move(part)), first_(first), total_(total) {}

  /// `done` samples are; false when the pass is to stop.
  bool tick(std::int64_t done) {
    const auto now = Clock::now();
    if (hooks_.progress && (now - told_ >= std::chrono::seconds(1) || done == total_)) {
      told_ = now;
      const double seconds = std::chrono::duration<double>(now - start_).count();
      const double rate = seconds > 0 ? static_cast<double>(done - first_) / seconds : 0;
      const double left = rate > 0 ? static_cast<double>(total_ - done) / rate : 0;
      hooks_.progress({part_, done, total_, rate, left});
    }
    return !hooks_.stop || !hooks_.stop();
  }

 private:
  using Clock = std::chrono::steady_clock;

  const PassHooks& hooks_;
  std::string part_;
  std::int64_t first_, total_;
  Clock::time_point start_ = Clock::now(), told_ = start_;
};

}  // namespace ablate
