#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "datasets/loader.h"

namespace ablate {

/// Makes numbered batches on several threads and hands them out in order, a bounded number ahead.
/// With 0 threads the caller makes each batch itself.
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

}  // namespace ablate
