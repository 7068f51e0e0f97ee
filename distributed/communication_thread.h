#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace ablate {

/// The one thread that talks to a transport which makes progress only inside its own calls. It
/// starts operations in the order of their submission, polls while any is under way and sleeps
/// otherwise. All exceptions of the transport reach the callers as TransientError.
class CommunicationThread {
 public:
  struct Operation {
    std::string what;
    std::function<void()> start;  ///< owns the operation's tensors
    bool done = false;
    std::string failure;
  };

  /// `poll`: advances the transport and returns how many of the operations under way, counted from
  /// the oldest, have newly finished; a younger one that finishes early waits for its turn.
  /// `crowded`: more threads than cores, so a polling thread must give way.
  CommunicationThread(std::function<std::size_t()> poll, bool crowded);
  ~CommunicationThread();

  /// Queues `start`, which runs on the thread. Throws TransientError after a failure.
  std::shared_ptr<Operation> submit(std::string what, std::function<void()> start);
  /// Blocks until it is done. Throws TransientError when it, or an operation before it, failed.
  void wait(const Operation& operation);
  /// Finishes what is under way, for at most `grace`, and joins. Whether everything finished.
  bool stop(std::chrono::steady_clock::duration grace);

 private:
  void run();
  bool step(std::unique_lock<std::mutex>& lock);
  void give_way(int misses) const;
  void fail_all(const std::string& failure);

  const std::function<std::size_t()> poll_;
  const bool crowded_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Operation>> queue_;      // not started yet
  std::deque<std::shared_ptr<Operation>> running_;    // touched by the thread alone
  std::deque<std::shared_ptr<Operation>> abandoned_;  // the transport may still write their tensors
  std::string failure_;                               // of the first that failed
  std::atomic<int> waiting_{0};
  bool stopping_ = false;
  std::chrono::steady_clock::time_point deadline_;
  std::thread thread_;  // last: starts when all else exists
};

}  // namespace ablate
