#include "runner/train/input_bound.h"

#include <thread>

#include <gtest/gtest.h>

namespace ablate {
namespace {

TEST(InputBound, NamesTheSlowStageAndWhatHelps) {
  EXPECT_EQ(input_bound_text(0.43, {{1, 6, 2, 1}}),
            "input-bound: 43 % of the epoch's steps was waiting for images; the slow stage is "
            "decode (read 10 %, decode 60 %, augment 20 %, copy 10 % of the loader threads' time): "
            "raise --loader-threads, or convert the data into a packed file of smaller images");
  EXPECT_NE(input_bound_text(0.3, {{5, 1, 1, 1}}).find("faster storage"), std::string::npos);
  EXPECT_EQ(input_bound_text(0.25, {}),
            "input-bound: 25 % of the epoch's steps was waiting for images; raise "
            "--loader-threads");
}

// Every moment of a timer belongs to one stage; a clock forgets what was taken.
TEST(StageClock, AddsUpThreads) {
  StageClock clock;
  const auto begin = std::chrono::steady_clock::now();
  const auto work = [&] {
    StageTimer timer(clock);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    timer.was(LoadStage::Read);
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
    timer.was(LoadStage::Augment);
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  const StageSeconds spent = clock.take();
  EXPECT_GE(spent.of[0], 2 * 0.002);
  EXPECT_EQ(spent.of[1], 0);
  EXPECT_GE(spent.of[2], 2 * 0.004);
  EXPECT_LE(spent.sum(), 2 * elapsed.count());
  EXPECT_EQ(clock.take().sum(), 0);
}

}  // namespace
}  // namespace ablate
