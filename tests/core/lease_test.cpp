#include "runner/core/lease.h"

#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/core/text.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test::message_of;
using test::TempFolder;

constexpr LeaseTimes kFast{.heartbeat = 20ms, .looks_stale = 60s, .watch = 300ms};

bool can_take(const fs::path& file) {
  std::string holder;
  LeaseWatch watch;
  return Lease::try_take(file, holder, watch, kFast).has_value();
}

/// A process that takes a lease and holds it until it is killed.
class OtherProcess {
 public:
  explicit OtherProcess(const fs::path& file) : pid_(::fork()) {
    if (pid_ != 0) return;
    auto* leaked = new Lease(Lease::take(file, "it", kFast));
    while (leaked != nullptr) ::pause();
    ::_exit(1);
  }
  ~OtherProcess() { end(); }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  pid_t pid() const { return pid_; }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

void wait_for(const fs::path& file) {
  for (int i = 0; i < 3000 && !fs::exists(file); ++i) std::this_thread::sleep_for(10ms);
  ASSERT_TRUE(fs::exists(file));
}

/// A lease of another host, whose clock is `ahead` of ours. It lives as long as beat() is called.
class OtherHost {
 public:
  OtherHost(fs::path file, std::chrono::seconds ahead) : file_(std::move(file)), ahead_(ahead) {
    write_file_atomic(file_, "elsewhere another-boot pid:[1] 12 345 678\n");
    beat();
  }
  void beat() const { fs::last_write_time(file_, fs::file_time_type::clock::now() + ahead_); }

 private:
  fs::path file_;
  std::chrono::seconds ahead_;
};

TEST(Lease, IsHeldByOneProcessAtATimeAndGivenBack) {
  const TempFolder folder;
  const fs::path file = folder / "sub" / "lease";
  EXPECT_FALSE(Lease::holder(file));
  {
    Lease lease = Lease::take(file, "it", kFast);
    EXPECT_FALSE(can_take(file)) << "not twice in one process, either";
    Lease moved = std::move(lease);
    EXPECT_NO_THROW(moved.check());
    EXPECT_EQ(Lease::holder(file),
              cat("process ", ::getpid(), " on ", host_name(), " (", file.string(), ")"));
  }
  EXPECT_FALSE(fs::exists(file));
  EXPECT_TRUE(can_take(file));
}

TEST(Lease, OfAnotherProcessIsRespectedUntilThatIsKilled) {
  const TempFolder folder;
  const fs::path file = folder / "lease";
  OtherProcess other(file);
  wait_for(file);
  EXPECT_FALSE(can_take(file));
  const std::string said = message_of<Error>([&] { Lease::take(file, "the thing", kFast); });
  EXPECT_NE(said.find(cat("the thing is being written by process ", other.pid())),
            std::string::npos)
      << said;
  other.end();
  EXPECT_TRUE(can_take(file)) << "at once: everybody here sees that the process is gone";
}

TEST(Lease, ManyProcessesThatWantOneGetItOneAfterTheOther) {
  const TempFolder folder;
  const fs::path file = folder / "lease", inside = folder / "inside";
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      int mistakes = 0;
      for (int turn = 0; turn < 20;) {
        std::string holder;
        LeaseWatch watch;
        const auto lease = Lease::try_take(file, holder, watch, kFast);
        if (!lease) continue;
        if (::mkdir(inside.c_str(), 0700) != 0) ++mistakes;
        std::this_thread::sleep_for(1ms);
        if (::rmdir(inside.c_str()) != 0) ++mistakes;
        ++turn;
      }
      ::_exit(mistakes);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
}

TEST(Lease, OfADeadProcessHasOneHeir) {
  constexpr int kHeirs = 5;
  for (int round = 0; round < 20; ++round) {
    const TempFolder folder;
    const fs::path file = folder / "lease";
    {
      const OtherProcess dead(file);
      wait_for(file);
    }
    int answers[2];
    ASSERT_EQ(::pipe(answers), 0);
    std::vector<pid_t> heirs;
    for (int i = 0; i < kHeirs; ++i) {
      const pid_t heir = ::fork();
      if (heir == 0) {
        std::string holder;
        LeaseWatch watch;
        const auto lease = Lease::try_take(file, holder, watch, kFast);
        const char answer = lease ? 1 : 0;
        if (::write(answers[1], &answer, 1) == 1) ::pause();  // nobody inherits it from an heir
        ::_exit(1);
      }
      heirs.push_back(heir);
    }
    int got = 0;
    for (int i = 0; i < kHeirs; ++i) {
      char answer = 0;
      ASSERT_EQ(::read(answers[0], &answer, 1), 1);
      got += answer;
    }
    EXPECT_EQ(got, 1);
    for (const pid_t heir : heirs) {
      ::kill(heir, SIGKILL);
      ::waitpid(heir, nullptr, 0);
    }
    for (const int end : answers) ::close(end);
  }
}

TEST(Lease, GivesSignsOfLifeByItself) {
  const TempFolder folder;
  const fs::path file = folder / "lease";
  const Lease lease = Lease::take(file, "it", kFast);
  const auto long_ago = fs::file_time_type::clock::now() - 1h;
  fs::last_write_time(file, long_ago);
  for (int i = 0; i < 3000 && fs::last_write_time(file) == long_ago; ++i) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_GT(fs::last_write_time(file), long_ago);
}

TEST(Lease, OfAnotherHostIsRespectedWhileItLivesWhateverItsClock) {
  for (const std::chrono::seconds ahead : {-3600s, -1s, 0s, 3600s}) {
    SCOPED_TRACE(ahead.count());
    const TempFolder folder;
    const fs::path file = folder / "lease";
    const OtherHost other(file, ahead);
    LeaseWatch watch;
    std::string holder;
    const auto end = std::chrono::steady_clock::now() + 2 * kFast.watch;
    for (; std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(10ms)) {
      ASSERT_FALSE(Lease::try_take(file, holder, watch, kFast));
      other.beat();
    }
    LeaseTimes patient = kFast;
    patient.watch = 60s;  // it does not last that long: the first sign tells
    const std::jthread living([&](const std::stop_token& over) {
      for (; !over.stop_requested(); std::this_thread::sleep_for(20ms)) other.beat();
    });
    const std::string said = message_of<Error>([&] { Lease::take(file, "it", patient); });
    EXPECT_NE(said.find("process 12 on elsewhere"), std::string::npos) << said;
  }
}

TEST(Lease, OfAHostThatIsGoneIsTakenAfterItWasWatched) {
  for (const std::chrono::seconds ahead : {-3600s, 3600s}) {
    SCOPED_TRACE(ahead.count());
    const TempFolder folder;
    const fs::path file = folder / "lease";
    const OtherHost other(file, ahead);
    EXPECT_FALSE(can_take(file)) << "not at once";
    EXPECT_FALSE(Lease::holder(file)) << "nobody counts on it";
    const auto begin = std::chrono::steady_clock::now();
    const Lease lease = Lease::take(file, "it", kFast);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, kFast.watch);
    EXPECT_NO_THROW(lease.check());
  }
}

TEST(Lease, OfAHostThatJustFellSilentIsLeftAlone) {
  const TempFolder folder;
  const fs::path file = folder / "lease";
  const OtherHost other(file, 0s);
  EXPECT_NE(message_of<Error>([&] { Lease::take(file, "it", kFast); }).find("elsewhere"),
            std::string::npos);
}

TEST(Lease, WhoLosesItIsToldAndLeavesTheOthersAlone) {
  const TempFolder folder;
  const fs::path file = folder / "lease";
  {
    const Lease lease = Lease::take(file, "it", kFast);
    const OtherHost thief(file, 0s);
    EXPECT_NE(message_of<Error>([&] { lease.check(); }).find("taken over"), std::string::npos);
  }
  EXPECT_EQ(read_file(file).substr(0, 9), "elsewhere") << "not ours to remove";
}

TEST(Lease, WithoutContentBelongsToAProcessThatIsJustStarting) {
  const TempFolder folder;
  const fs::path file = folder / "lease";
  write_file_atomic(file, "");
  EXPECT_NE(message_of<Error>([&] { Lease::take(file, "it", kFast); }).find("just starting"),
            std::string::npos);
  fs::last_write_time(file, fs::file_time_type::clock::now() - 1min);
  EXPECT_NO_THROW(Lease::take(file, "it", kFast)) << "that never came to write it";
}

}  // namespace
}  // namespace ablate
