#include "distributed/communication_thread.h"

#include "runner/core/error.h"

namespace ablate {

CommunicationThread::CommunicationThread(std::function<std::size_t()> poll, bool crowded)
    : poll_(std::move(poll)), crowded_(crowded), thread_([this] { run(); }) {}

CommunicationThread::~CommunicationThread() { stop({}); }

std::shared_ptr<CommunicationThread::Operation> CommunicationThread::submit(
    std::string what, std::function<void()> start) {
  auto operation = std::make_shared<Operation>();
  operation->what = std::move(what);
  operation->start = std::move(start);
  const std::lock_guard lock(mutex_);
  ABLATE_CHECK(!stopping_, operation->what, " after the end of communication");
  if (!failure_.empty()) throw TransientError(failure_);
  queue_.push_back(operation);
  changed_.notify_all();
  return operation;
}

void CommunicationThread::wait(const Operation& operation) {
  std::unique_lock lock(mutex_);
  ++waiting_;
  changed_.wait(lock, [&] { return operation.done; });
  --waiting_;
  if (!operation.failure.empty()) throw TransientError(operation.failure);
}

bool CommunicationThread::stop(std::chrono::steady_clock::duration grace) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) deadline_ = std::chrono::steady_clock::now() + grace;
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  return running_.empty() && queue_.empty() && failure_.empty();
}

void CommunicationThread::run() {
  int misses = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    if (running_.empty()) {
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      misses = 0;
    }
    const bool idle = running_.empty() && queue_.empty();
    if (stopping_ && (idle || std::chrono::steady_clock::now() > deadline_)) return;
    bool progress = false;
    try {
      progress = step(lock);
    } catch (const std::exception& error) {
      if (!lock.owns_lock()) lock.lock();
      fail_all(error.what());
    }
    misses = progress ? 0 : misses + 1;
    if (!progress) {
      lock.unlock();
      give_way(misses);
      lock.lock();
    }
  }
}

/// Starts what is queued, polls once, hands out what finished. Whether anything did.
bool CommunicationThread::step(std::unique_lock<std::mutex>& lock) {
  while (!queue_.empty()) {
    const auto operation = std::move(queue_.front());
    queue_.pop_front();
    running_.push_back(operation);
    lock.unlock();
    operation->start();
    lock.lock();
  }
  lock.unlock();
  const std::size_t finished = poll_();
  lock.lock();
  for (std::size_t i = 0; i < finished; ++i) {
    running_.front()->start = nullptr;  // lets go of the tensors
    running_.front()->done = true;
    running_.pop_front();
  }
  if (finished > 0) changed_.notify_all();
  return finished > 0;
}

void CommunicationThread::give_way(int misses) const {
  // A rank that waits has nothing better to do with its core than polling; one that computes needs
  // the core more than the last microseconds of latency.
  if (waiting_ > 0 && misses < 1000) {
    if (crowded_) std::this_thread::yield();
    return;
  }
  std::this_thread::sleep_for(std::chrono::microseconds(misses < 2000 ? 50 : 200));
}

void CommunicationThread::fail_all(const std::string& failure) {
  failure_ = failure;
  running_.insert(running_.end(), queue_.begin(), queue_.end());
  queue_.clear();
  for (auto& operation : running_) {
    operation->failure = cat(operation->what, ": ", failure);
    operation->done = true;
  }
  abandoned_.insert(abandoned_.end(), running_.begin(), running_.end());
  running_.clear();
  changed_.notify_all();
}

}  // namespace ablate
