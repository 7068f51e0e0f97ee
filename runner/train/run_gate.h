#pragma once

#include <condition_variable>
#include <mutex>

namespace ablate {

/// Keeps runs that share a process out of each other's way on the device. Capturing a CUDA graph,
/// timing algorithms and emptying the allocator's cache concern the whole process: whoever does
/// them first waits until every other run is parked between two steps. A process with one run never
/// waits here.
class RunGate {
 public:
  RunGate() = default;
  RunGate(const RunGate&) = delete;
  RunGate& operator=(const RunGate&) = delete;

  /// CUDA's captures and the allocator belong to the process, so their gate does, too.
  static RunGate& of_process();

  /// Makes the calling thread that of one run of several, until destroyed by the same thread.
  class Member {
   public:
    explicit Member(RunGate& gate);
    ~Member();
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    RunGate& gate_;
  };

  /// While it lives, all other members are parked and none else is alone. Not to be nested.
  class Alone {
   public:
    explicit Alone(RunGate& gate);
    ~Alone();
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    RunGate& gate_;
  };

  /// A member parks here while another run is alone or waits for it. Does nothing for others.
  void step_boundary();

 private:
  bool wanted() const { return taken_ || waiting_ > 0; }
  bool is_member() const;

  std::mutex mutex_;
  std::condition_variable changed_;
  int working_ = 0;  // members that are not parked
  int waiting_ = 0;  // for being alone
  bool taken_ = false;
};

}  // namespace ablate
