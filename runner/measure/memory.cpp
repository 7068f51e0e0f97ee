#include "runner/measure/memory.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "runner/core/error.h"

namespace ablate {

class MemoryMeter::Reporter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t alloc_size, std::size_t, std::size_t,
                         c10::Device device) override {
    if (!device.is_cpu()) return;
    const std::int64_t now = current_ += alloc_size;
    std::int64_t peak = peak_;
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  // Worker threads of a backward pass report too.
  std::atomic<std::int64_t> current_ = 0, peak_ = 0;
};

MemoryMeter::MemoryMeter()
    : reporter_(std::make_shared<Reporter>()),
      guard_(c10::DebugInfoKind::PROFILER_STATE, reporter_) {}

MemoryMeter::~MemoryMeter() = default;

std::int64_t MemoryMeter::current() const { return reporter_->current_; }
std::int64_t MemoryMeter::peak() const { return reporter_->peak_; }
void MemoryMeter::reset_peak() { reporter_->peak_ = reporter_->current_.load(); }

namespace {

struct Tried {
  std::int64_t batch, bytes;
};

/// Where a straight line through two measurements reaches the budget.
std::int64_t on_line(const Tried& a, const Tried& b, std::int64_t budget) {
  const double slope =
      static_cast<double>(b.bytes - a.bytes) / static_cast<double>(b.batch - a.batch);
  if (slope <= 0) return std::numeric_limits<std::int64_t>::max();
  const double batch = static_cast<double>(a.batch) + static_cast<double>(budget - a.bytes) / slope;
  return static_cast<std::int64_t>(std::min(batch, 1e15));
}

}  // namespace

std::int64_t find_max_batch(const std::function<std::int64_t(std::int64_t)>& peak_bytes,
                            std::int64_t budget, std::int64_t limit) {
  // A line through very small batches may mislead far beyond what the machine can hold.
  constexpr std::int64_t kGrowth = 16;
  ABLATE_CHECK(limit >= 1);
  Tried fits{0, 0}, other{0, 0};  // `other`: the measurement that the next line goes through
  std::int64_t next = 1, too_large = limit + 1;
  for (int round = 1;; ++round) {
    const Tried now{next, peak_bytes(next)};
    if (now.bytes <= budget) {
      if (other.batch < now.batch) other = fits;
      fits = now;
    } else {
      other = now;
      too_large = now.batch;
    }
    if (fits.batch == 0 || fits.batch + 1 == too_large) break;
    next = other.batch == 0 ? 2 * fits.batch : on_line(fits, other, budget);
    if (round % 4 == 0 && too_large <= limit) next = fits.batch + (too_large - fits.batch) / 2;
    next = std::clamp(std::min(next, kGrowth * fits.batch), fits.batch + 1, too_large - 1);
  }
  return fits.batch;
}

FittingBatch find_fitting_batch(const std::function<bool(std::int64_t)>& fits, std::int64_t start,
                                std::int64_t limit) {
  constexpr std::int64_t kPrecision = 64;
  ABLATE_CHECK(start >= 1 && start <= limit);
  FittingBatch found;
  const auto attempt = [&](std::int64_t batch) {
    (fits(batch) ? found.fits : found.too_large) = batch;
  };
  for (attempt(start); found.fits == 0 && found.too_large > 1;) attempt(found.too_large / 2);
  while (found.too_large == 0 && found.fits < limit) attempt(std::min(2 * found.fits, limit));
  if (found.too_large == 0) return found;
  while (found.too_large - found.fits > std::max<std::int64_t>(1, found.fits / kPrecision)) {
    attempt(found.fits + (found.too_large - found.fits) / 2);
  }
  return found;
}

}  // namespace ablate
