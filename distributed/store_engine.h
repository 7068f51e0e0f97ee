#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distributed/communication_thread.h"
#include "distributed/communicator.h"

namespace c10d {
class Store;
}

namespace ablate {

/// One round of a group: every sender leaves a message in the store, every rank reads all of them.
struct StoreRound {
  std::string what;
  std::vector<std::string> keys;  ///< one a sender
  std::vector<int> senders;       ///< their ranks, for messages
  std::function<void()> send;     ///< leaves this rank's message, if it sends one
  std::function<void(std::vector<std::vector<std::uint8_t>>)> receive;  ///< by sender
};

/// The rounds of one process in the order of their submission, on one communication thread.
class StoreEngine {
 public:
  using Operation = std::shared_ptr<CommunicationThread::Operation>;

  StoreEngine(std::shared_ptr<c10d::Store> store, std::chrono::milliseconds patience);

  Operation submit(StoreRound round);
  void wait(const CommunicationThread::Operation& operation) { thread_.wait(operation); }
  /// Finishes what is under way, for a few seconds; whether all was.
  bool stop();

  c10d::Store& store() { return *store_; }
  /// Which of the keys nobody has set.
  std::vector<std::size_t> missing(const std::vector<std::string>& keys);
  /// Makes the rounds of all ranks throw.
  void tell_failure(const std::string& why);

 private:
  struct Running {
    StoreRound round;
    std::chrono::steady_clock::time_point since;
  };

  std::size_t poll();
  bool advance(Running& oldest);
  void look_for_failures(const Running& oldest);

  std::shared_ptr<c10d::Store> store_;
  const std::chrono::milliseconds patience_;
  std::deque<Running> running_;  // of the thread alone
  std::chrono::steady_clock::time_point looked_;
  CommunicationThread thread_;  // last: it uses the others
};

/// Rank `rank` of the `size` ranks that use the prefix for their keys.
std::unique_ptr<Communicator> make_store_communicator(std::shared_ptr<StoreEngine> engine,
                                                      const std::string& prefix, int rank,
                                                      int size);

}  // namespace ablate
