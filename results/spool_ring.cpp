#include "results/spool_ring.h"

#include <bit>

namespace ablate {

SpoolRing::SpoolRing(std::size_t slots) : slots_(std::bit_ceil(slots)) {}

SpoolRing::~SpoolRing() {
  std::vector<Point> points;
  drain(
      slots_.size(), points, [] {}, [](std::unique_ptr<Record>) {});
}

bool SpoolRing::full() {
  const std::uint64_t head = head_.load(std::memory_order_relaxed);
  if (head - seen_tail_ < slots_.size()) return false;
  seen_tail_ = tail_.load(std::memory_order_acquire);
  return head - seen_tail_ >= slots_.size();
}

bool SpoolRing::try_push(const Point& point) {
  const std::lock_guard lock(producers_);
  if (full()) return false;
  const std::uint64_t head = head_.load(std::memory_order_relaxed);
  Slot& slot = slots_[head & (slots_.size() - 1)];
  slot.metric = point.metric;
  slot.step = point.step;
  slot.value = point.value;
  head_.store(head + 1, std::memory_order_release);
  return true;
}

bool SpoolRing::try_push(std::unique_ptr<Record>& record) {
  const std::lock_guard lock(producers_);
  if (full()) return false;
  const std::uint64_t head = head_.load(std::memory_order_relaxed);
  Slot& slot = slots_[head & (slots_.size() - 1)];
  slot.metric = kRecord;
  slot.step = 0;
  slot.record = record.release();
  head_.store(head + 1, std::memory_order_release);
  return true;
}

std::size_t SpoolRing::size() const {
  return head_.load(std::memory_order_acquire) - tail_.load(std::memory_order_acquire);
}

}  // namespace ablate
