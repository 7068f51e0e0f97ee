#include "datasets/ordered_pool.h"

#include <chrono>

#include "runner/core/error.h"

namespace ablate {

OrderedPool::OrderedPool(Make make, int threads, int prefetch)
    : make_(std::move(make)), prefetch_(std::max(prefetch, threads)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

OrderedPool::~OrderedPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void OrderedPool::seek(std::int64_t number, std::int64_t end) {
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

Batch OrderedPool::next() {
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

double OrderedPool::take_wait_seconds() {
  const std::lock_guard lock(mutex_);
  return std::exchange(waited_, 0.0);
}

void OrderedPool::work() {
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

OrderedPool::Slot OrderedPool::make_slot(std::int64_t number) const {
  Slot slot;
  try {
    slot.batch = make_(number);
  } catch (...) {
    slot.error = std::current_exception();
  }
  return slot;
}

}  // namespace ablate
