#include "runner/core/stop.h"

#include <optional>

#include <gtest/gtest.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using std::chrono::system_clock;

TEST(Stop, NothingAskedNothingRequested) {
  StopSignal stop;
  EXPECT_FALSE(stop.requested());
  EXPECT_EQ(stop.reason(), "");
}

TEST(Stop, EverySignalOfTheListStops) {
  const std::vector<std::string> names = {"SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const StopHandlers handlers;
    StopSignal first;
    StopSignal second;
    EXPECT_FALSE(first.requested());
    ASSERT_EQ(::raise(StopHandlers::kSignals[i]), 0);
    EXPECT_TRUE(first.requested());
    EXPECT_TRUE(second.requested());
    EXPECT_EQ(first.reason(), "signal " + names[i]);
  }
}

TEST(Stop, HandlersRestoreWhatWasBefore) {
  const auto handler_of = [](int signal) {
    struct sigaction action {};
    ::sigaction(signal, nullptr, &action);
    return action.sa_handler;
  };
  const auto before = handler_of(SIGTERM);
  {
    const StopHandlers handlers;
    EXPECT_NE(handler_of(SIGTERM), before);
    EXPECT_THROW(StopHandlers(), BugError);
    ASSERT_EQ(::raise(SIGUSR1), 0);
  }
  EXPECT_EQ(handler_of(SIGTERM), before);
  StopSignal later;
  EXPECT_FALSE(later.requested());
}

TEST(Stop, AHangupIgnoredByNohupStaysIgnored) {
  const auto before = ::signal(SIGHUP, SIG_IGN);
  {
    const StopHandlers handlers;
    StopSignal stop;
    ASSERT_EQ(::raise(SIGHUP), 0);
    EXPECT_FALSE(stop.requested());
  }
  ::signal(SIGHUP, before);
}

TEST(StopDeathTest, TheSecondInterruptEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopHandlers handlers;
        ::raise(SIGINT);
        StopSignal stop;
        if (!stop.requested()) ::_exit(1);
        ::raise(SIGTERM);  // does not count
        ::raise(SIGINT);
        ::_exit(2);
      },
      testing::ExitedWithCode(130), "");
}

TEST(Stop, AStopFileStopsAndStaysAsked) {
  const test::TempFolder folder;
  StopSignal stop({folder / "stop", std::nullopt, std::chrono::milliseconds(0)});
  EXPECT_FALSE(stop.requested());
  write_file_atomic(folder / "stop", "");
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(stop.reason(), "stop file " + (folder / "stop").string());
  std::filesystem::remove(folder / "stop");
  EXPECT_TRUE(stop.requested());
}

TEST(Stop, TheStopFileIsNotAskedForAtEveryCall) {
  const test::TempFolder folder;
  StopSignal stop({folder / "stop", std::nullopt, std::chrono::hours(1)});
  EXPECT_FALSE(stop.requested());  // the only look of this hour
  write_file_atomic(folder / "stop", "");
  EXPECT_FALSE(stop.requested());
}

TEST(Stop, ADeadlineStops) {
  StopSignal past({{}, system_clock::now() - std::chrono::seconds(1)});
  EXPECT_TRUE(past.requested());
  EXPECT_EQ(past.reason(), "deadline");
  StopSignal future({{}, system_clock::now() + std::chrono::hours(1)});
  EXPECT_FALSE(future.requested());
}

TEST(Stop, TheFirstReasonStays) {
  StopSignal stop;
  stop.request("watchdog");
  stop.request("something else");
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(stop.reason(), "watchdog");
}

}  // namespace
}  // namespace ablate
