#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "results/record.h"

namespace ablate {

/// Bounded queue between logging threads and the thread that owns a spool file. Producers share a
/// mutex the consumer never takes, so a consumer inside write() or without a core cannot hold up a
/// producer; between the two sides there are only two atomics.
class SpoolRing {
 public:
  /// `slots` is rounded up to a power of two.
  explicit SpoolRing(std::size_t slots);
  ~SpoolRing();
  SpoolRing(const SpoolRing&) = delete;
  SpoolRing& operator=(const SpoolRing&) = delete;

  /// False when full.
  bool try_push(const Point& point);
  bool try_push(std::unique_ptr<Record>& record);

  /// Moves at most `limit` entries, in order: points are appended to `points`; every other record
  /// is handed to `on_record` after `on_points` has taken the points before it.
  template <typename OnPoints, typename OnRecord>
  void drain(std::size_t limit, std::vector<Point>& points, OnPoints on_points, OnRecord on_record);

  /// Entries pushed and not yet drained.
  std::size_t size() const;
  /// Entries ever pushed.
  std::uint64_t pushed() const { return head_.load(std::memory_order_relaxed); }
  std::size_t slots() const { return slots_.size(); }

 private:
  // A record is a slot whose metric is kRecord and whose pointer owns the record.
  static constexpr std::uint32_t kRecord = 0xFFFFFFFF;
  struct Slot {
    std::uint32_t metric;
    std::int64_t step;
    union {
      double value;
      Record* record;
    };
  };

  bool full();

  std::vector<Slot> slots_;
  std::mutex producers_;
  std::uint64_t seen_tail_ = 0;  // the producers' copy: saves reading tail_ on every push
  alignas(64) std::atomic<std::uint64_t> head_{0};
  alignas(64) std::atomic<std::uint64_t> tail_{0};
};

template <typename OnPoints, typename OnRecord>
void SpoolRing::drain(std::size_t limit, std::vector<Point>& points, OnPoints on_points,
                      OnRecord on_record) {
  const std::uint64_t head = head_.load(std::memory_order_acquire);
  std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  for (; tail != head && limit > 0; ++tail, --limit) {
    const Slot& slot = slots_[tail & (slots_.size() - 1)];
    if (slot.metric != kRecord) {
      points.push_back({slot.metric, slot.step, slot.value});
      continue;
    }
    on_points();
    on_record(std::unique_ptr<Record>(slot.record));
  }
  on_points();
  tail_.store(tail, std::memory_order_release);
}

}  // namespace ablate
