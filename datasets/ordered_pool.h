#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "runner/core/error.h"

namespace ablate {

/// Makes numbered batches on several threads and hands them out in order, a bounded number ahead.
/// With 0 threads the caller makes each batch itself.
template <typename Batch>
class OrderedPool {
 public:
  using Make = std::function<Batch(std::int64_t number)>;

  OrderedPool(Make make, int threads, int prefetch);
  ~OrderedPool();

  /// Batches from `number` on are wanted next, up to `end` (exclusive). What was made for an
  /// earlier seek is thrown away. No thread is making a batch when this returns from seek(n, n), so
  /// what `make` reads may be changed then.
  void seek(std::int64_t number, std::int64_t end);
  /// The next batch; rethrows what making it threw. Never called past `end`.
  Batch next();
  /// Seconds next() has waited since the last call.
  double take_wait_seconds();

 private:
  struct Slot {
    Batch batch;
    std::exception_ptr error;
  };

  void work();
  Slot make_slot(std::int64_t number) const;

  Make make_;
  std::int64_t prefetch_;
  std::mutex mutex_;
  std::condition_variable wanted_, made_, idle_;
  std::map<std::int64_t, Slot> ready_;
  int busy_ = 0;  // threads that are making a batch
  std::int64_t to_make_ = 0, to_hand_ = 0, end_ = 0;
  bool stopping_ = false;
  double waited_ = 0;
  std::vector<std::thread> threads_;
};

template <typename Batch>
OrderedPool<Batch>::OrderedPool(Make make, int threads, int prefetch)
    : make_(std::move(make)), prefetch_(std::max(prefetch, threads)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

template <typename Batch>
OrderedPool<Batch>::~OrderedPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

template <typename Batch>
void OrderedPool<Batch>::seek(std::int64_t number, std::int64_t end) {
  {
    std::unique_lock lock(mutex_);
    end_ = to_make_;  // nobody starts another
    idle_.wait(lock, [this] { return busy_ == 0; });
    ready_.clear();
    to_make_ = to_hand_ = number;
    end_ = end;
  }
  wanted_.notify_all();
}

template <typename Batch>
Batch OrderedPool<Batch>::next() {
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  ABLATE_CHECK(to_hand_ < end_, "no batch ", to_hand_, " in a pass of ", end_);
  Slot slot;
  if (threads_.empty()) {
    slot = make_slot(to_hand_);
  } else {
    made_.wait(lock, [this] { return ready_.contains(to_hand_); });
    slot = std::move(ready_.extract(to_hand_).mapped());
  }
  ++to_hand_;
  waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  lock.unlock();
  wanted_.notify_one();
  if (slot.error) std::rethrow_exception(slot.error);
  return std::move(slot.batch);
}

template <typename Batch>
double OrderedPool<Batch>::take_wait_seconds() {
  const std::lock_guard lock(mutex_);
  return std::exchange(waited_, 0.0);
}

template <typename Batch>
void OrderedPool<Batch>::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(
        lock, [this] { return stopping_ || (to_make_ < end_ && to_make_ < to_hand_ + prefetch_); });
    if (stopping_) return;
    const std::int64_t number = to_make_++;
    ++busy_;
    lock.unlock();
    Slot slot = make_slot(number);
    lock.lock();
    ready_.emplace(number, std::move(slot));
    --busy_;
    made_.notify_all();
    idle_.notify_all();
  }
}

template <typename Batch>
typename OrderedPool<Batch>::Slot OrderedPool<Batch>::make_slot(std::int64_t number) const {
  Slot slot;
  try {
    slot.batch = make_(number);
  } catch (...) {
    slot.error = std::current_exception();
  }
  return slot;
}

}  // namespace ablate
