#include "runner/cli/watch.h"

#include <chrono>
#include <thread>

#include "runner/core/stop.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

constexpr auto kPeriod = 2000ms;
constexpr auto kStep = 100ms;  // how fast Ctrl-C is answered

}  // namespace

bool watch(const std::function<bool()>& look) {
  const StopHandlers handlers;
  StopSignal stop;
  while (look()) {
    for (auto waited = 0ms; waited < kPeriod; waited += kStep) {
      if (stop.requested()) return false;
      std::this_thread::sleep_for(kStep);
    }
  }
  return true;
}

}  // namespace ablate
