#include "runner/train/run_gate.h"

#include "runner/core/error.h"

namespace ablate {
namespace {

thread_local const RunGate* gate_of_thread = nullptr;

}  // namespace

RunGate& RunGate::of_process() {
  static RunGate gate;
  return gate;
}

bool RunGate::is_member() const { return gate_of_thread == this; }

RunGate::Member::Member(RunGate& gate) : gate_(gate) {
  ABLATE_CHECK(gate_of_thread == nullptr, "this thread has a run already");
  std::unique_lock lock(gate_.mutex_);
  gate_.changed_.wait(lock, [&] { return !gate_.wanted(); });
  ++gate_.working_;
  gate_of_thread = &gate_;
}

RunGate::Member::~Member() {
  const std::lock_guard lock(gate_.mutex_);
  --gate_.working_;
  gate_of_thread = nullptr;
  gate_.changed_.notify_all();
}

RunGate::Alone::Alone(RunGate& gate) : gate_(gate) {
  std::unique_lock lock(gate_.mutex_);
  if (gate_.is_member()) --gate_.working_;
  ++gate_.waiting_;
  gate_.changed_.notify_all();
  gate_.changed_.wait(lock, [&] { return !gate_.taken_ && gate_.working_ == 0; });
  --gate_.waiting_;
  gate_.taken_ = true;
}

RunGate::Alone::~Alone() {
  const std::lock_guard lock(gate_.mutex_);
  gate_.taken_ = false;
  // At once: who waits to be alone gets its turn at the next boundary of this run.
  if (gate_.is_member()) ++gate_.working_;
  gate_.changed_.notify_all();
}

void RunGate::step_boundary() {
  if (!is_member()) return;
  std::unique_lock lock(mutex_);
  if (!wanted()) return;
  --working_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return !wanted(); });
  ++working_;
}

}  // namespace ablate
