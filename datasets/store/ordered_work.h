#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace ablate {

/// Makes make(first), ..., make(end - 1) on `threads` threads and hands the results to `take` in
/// order, on the calling thread; a bounded number is under way. Ends early when `take` returns
/// false. Rethrows what `make` threw at that place of the order, or what `take` threw.
template <typename Make, typename Take>
void in_order(std::int64_t first, std::int64_t end, int threads, Make make, Take take) {
  using Made = decltype(make(first));
  struct Slot {
    std::optional<Made> made;  // nothing when there is an error
    std::exception_ptr error;
  };
  std::mutex mutex;
  std::condition_variable space, ready;
  std::map<std::int64_t, Slot> slots;
  std::int64_t next = first, taken = first;
  bool stopping = false;
  const std::int64_t ahead = 4 * std::max(threads, 1);

  const auto work = [&] {
    std::unique_lock lock(mutex);
    for (;;) {
      space.wait(lock, [&] { return stopping || next >= end || next < taken + ahead; });
      if (stopping || next >= end) return;
      const std::int64_t number = next++;
      lock.unlock();
      Slot slot;
      try {
        slot.made = make(number);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slots.emplace(number, std::move(slot));
      ready.notify_one();
    }
  };
  struct Stopper {  // before the threads are joined, however this ends
    std::mutex& mutex;
    bool& stopping;
    std::condition_variable& space;
    ~Stopper() {
      const std::lock_guard lock(mutex);
      stopping = true;
      space.notify_all();
    }
  };
  std::vector<std::jthread> workers;
  const Stopper stopper{mutex, stopping, space};
  for (int i = 0; i < std::max(threads, 1); ++i) workers.emplace_back(work);

  for (std::int64_t number = first; number < end; ++number) {
    std::unique_lock lock(mutex);
    ready.wait(lock, [&] { return slots.contains(number); });
    Slot slot = std::move(slots.extract(number).mapped());
    taken = number + 1;
    lock.unlock();
    space.notify_one();
    if (slot.error) std::rethrow_exception(slot.error);
    if (!take(std::move(*slot.made))) return;
  }
}

/// Calls each(0), ..., each(count - 1) on `threads` threads, in any order. Rethrows the exception
/// of the smallest number that threw.
template <typename Each>
void in_parallel(std::int64_t count, int threads, Each each) {
  in_order(
      0, count, threads,
      [&](std::int64_t i) {
        each(i);
        return true;
      },
      [](bool) { return true; });
}

}  // namespace ablate
