#include "runner/train/run_gate.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"

// Who is alone on the device sees every other run of the process parked.

namespace ablate {
namespace {

using namespace std::chrono_literals;

TEST(RunGate, WhoIsAloneSeesNoOtherRunAtWork) {
  constexpr int kRuns = 4, kSteps = 2000;
  RunGate gate;
  std::atomic<int> stepping{0}, alone{0};
  std::atomic<bool> broken{false};
  {
    std::vector<std::jthread> runs;
    for (int run = 0; run < kRuns; ++run) {
      runs.emplace_back([&, run] {
        const RunGate::Member member(gate);
        for (int step = 0; step < kSteps; ++step) {
          gate.step_boundary();
          if (step % 97 == 13 * run) {
            const RunGate::Alone lock(gate);
            if (alone.fetch_add(1) > 0 || stepping > 0) broken = true;
            std::this_thread::yield();
            if (stepping > 0) broken = true;
            --alone;
          }
          ++stepping;
          if (alone > 0) broken = true;
          --stepping;
        }
      });
    }
  }
  EXPECT_FALSE(broken);
}

TEST(RunGate, ARunBeginsOnlyWhenNoneIsAlone) {
  RunGate gate;
  std::atomic<bool> began{false};
  std::jthread run;
  {
    const RunGate::Alone alone(gate);
    run = std::jthread([&] {
      const RunGate::Member member(gate);
      began = true;
    });
    std::this_thread::sleep_for(20ms);
    EXPECT_FALSE(began);
  }
  run.join();
  EXPECT_TRUE(began);
}

TEST(RunGate, ARunThatEndsByAnExceptionLetsTheOthersGoOn) {
  RunGate gate;
  std::jthread([&] {
    try {
      const RunGate::Member member(gate);
      const RunGate::Alone alone(gate);
      throw Error("the end");
    } catch (const Error&) {
    }
  }).join();
  std::jthread([&] {
    const RunGate::Member member(gate);
    gate.step_boundary();
    const RunGate::Alone alone(gate);
  }).join();
}

TEST(RunGate, AProcessWithOneRunNeverWaits) {
  RunGate gate;
  gate.step_boundary();
  { const RunGate::Alone alone(gate); }
  gate.step_boundary();
  const RunGate::Alone again(gate);
}

}  // namespace
}  // namespace ablate
