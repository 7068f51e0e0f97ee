#include "runner/core/process.h"

#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::message_of;

ProcessOptions shell(const std::string& script) {
  ProcessOptions options;
  options.arguments = {"/bin/sh", "-c", script};
  return options;
}

/// Waits for a condition that another process brings about; the limit is only met on failure.
template <typename Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

/// The content of a file that another process puts there by a rename.
std::string file_made_by_child(const std::filesystem::path& file) {
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(file); })) << file;
  return read_file(file);
}

TEST(Process, ReportsExitStatusAndSignal) {
  EXPECT_TRUE(ChildProcess(shell("exit 0")).wait().success());
  const ExitStatus failed = ChildProcess(shell("exit 3")).wait();
  EXPECT_EQ(failed.code, 3);
  EXPECT_EQ(failed.str(), "exit status 3");
  const ExitStatus killed = ChildProcess(shell("kill -9 $$")).wait();
  EXPECT_EQ(killed.signal, SIGKILL);
  EXPECT_EQ(killed.code, 137);
  EXPECT_EQ(killed.str(), "signal 9 (Killed)");
}

TEST(Process, AppendsOutputToFiles) {
  const test::TempFolder folder;
  ProcessOptions options = shell("echo $GREETING; echo oops >&2; pwd");
  options.environment = {{"GREETING", "hello"}, {"PATH", "/bin:/usr/bin"}};
  options.working_folder = "/";
  options.output_file = folder / "log";
  options.error_file = folder / "log";
  EXPECT_TRUE(ChildProcess(options).wait().success());
  options.environment[0].second = "again";
  EXPECT_TRUE(ChildProcess(options).wait().success());
  EXPECT_EQ(read_file(folder / "log"), "hello\noops\n/\nagain\noops\n/\n");
}

TEST(Process, HasNoStandardInputAndDefaultSignals) {
  const auto before = ::signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(ChildProcess(shell("cat; kill -PIPE $$")).wait().signal, SIGPIPE);
  ::signal(SIGPIPE, before);
}

TEST(Process, WhatCannotStartIsNamed) {
  ProcessOptions options;
  options.arguments = {"/no/such/program"};
  EXPECT_EQ(message_of<Error>([&] { ChildProcess child(options); }),
            "/no/such/program: cannot be started: No such file or directory");
  options = shell("true");
  options.working_folder = "/no/such/folder";
  EXPECT_EQ(message_of<Error>([&] { ChildProcess child(options); }),
            "/no/such/folder: /bin/sh cannot start in it: No such file or directory");
  options = shell("true");
  options.output_file = "/no/such/folder/log";
  EXPECT_EQ(message_of<Error>([&] { ChildProcess child(options); }),
            "/no/such/folder/log: cannot be written: No such file or directory");
}

TEST(Process, PollAndWaitForSeeTheEnd) {
  const test::TempFolder folder;
  const std::string go = (folder / "go").string();
  ChildProcess child(shell("until [ -e " + go + " ]; do sleep 0.01; done"));
  EXPECT_FALSE(child.poll());
  EXPECT_FALSE(child.wait_for(0.01));
  write_file_atomic(go, "");
  ASSERT_TRUE(child.wait_for(30));
  EXPECT_TRUE(child.poll()->success());
  EXPECT_FALSE(child.signal_group(SIGTERM));
}

/// A shell that starts a long-lived child of its own and writes that one's pid to `file`.
std::string with_grandchild(const std::string& file, const std::string& then) {
  return "sleep 1000 & echo $! > " + file + ".tmp; mv " + file + ".tmp " + file + "; " + then;
}

TEST(Process, ASignalReachesTheWholeGroup) {
  const test::TempFolder folder;
  const std::string file = (folder / "pid").string();
  ChildProcess child(shell(with_grandchild(file, "wait")));
  const pid_t grandchild = std::stoi(file_made_by_child(file));
  EXPECT_EQ(::getpgid(grandchild), child.pid());
  EXPECT_NE(::getpgid(grandchild), ::getpgrp());
  EXPECT_TRUE(child.signal_group(SIGTERM));
  EXPECT_EQ(child.wait().signal, SIGTERM);
  EXPECT_TRUE(eventually([&] { return !process_id(grandchild); }));
}

TEST(Process, WhatALeaderLeavesIsKilled) {
  const test::TempFolder folder;
  const std::string file = (folder / "pid").string();
  ChildProcess child(shell(with_grandchild(file, "exit 5")));
  const pid_t grandchild = std::stoi(file_made_by_child(file));
  EXPECT_EQ(child.wait().code, 5);
  EXPECT_TRUE(eventually([&] { return !process_id(grandchild); }));
}

TEST(Process, DestructionEndsTheGroup) {
  const test::TempFolder folder;
  const std::string file = (folder / "pid").string();
  pid_t grandchild = 0;
  {
    ChildProcess child(shell(with_grandchild(file, "wait")));
    ChildProcess moved = std::move(child);
    grandchild = std::stoi(file_made_by_child(file));
  }
  EXPECT_TRUE(eventually([&] { return !process_id(grandchild); }));
}

TEST(Process, DiesWithTheThreadThatStartedItWhenAsked) {
  ProcessOptions options = shell("exec sleep 1000");
  options.die_with_parent = true;
  std::optional<ChildProcess> child;
  std::thread([&] { child.emplace(options); }).join();
  EXPECT_EQ(child->wait().signal, SIGKILL);
}

TEST(Process, IsBoundToItsCpus) {
  const std::vector<int> ours = available_cpus();
  ASSERT_FALSE(ours.empty());
  ProcessOptions options = shell("grep Cpus_allowed_list /proc/self/status");
  options.cpus = {ours.back()};
  EXPECT_EQ(run_and_capture(options).output,
            "Cpus_allowed_list:\t" + std::to_string(ours.back()) + "\n");
  EXPECT_EQ(available_cpus(), ours);
}

TEST(Capture, ReturnsBothStreamsAndTheStatus) {
  const CapturedRun run = run_and_capture(shell("cat; echo bad >&2; exit 4"), "some input\n");
  EXPECT_EQ(run.status.code, 4);
  EXPECT_EQ(run.output, "some input\n");
  EXPECT_EQ(run.errors, "bad\n");
  EXPECT_FALSE(run.timed_out);
}

TEST(Capture, LargeStreamsDoNotBlock) {
  const std::string input(3'000'000, 'x');
  const CapturedRun run = run_and_capture(shell("tee /dev/stderr"), input);
  EXPECT_EQ(run.output, input);
  EXPECT_EQ(run.errors, input);
  EXPECT_TRUE(run_and_capture(shell("exit 0"), input).status.success());  // reads nothing
}

TEST(Capture, ATimeoutKillsTheProgram) {
  const CapturedRun run = run_and_capture(shell("echo early; exec sleep 1000"), {}, 0.3);
  EXPECT_TRUE(run.timed_out);
  EXPECT_EQ(run.status.signal, SIGKILL);
}

TEST(ProcessIdentity, KnowsThisProcessAndNoOtherOfItsPid) {
  const std::optional<ProcessId> own = process_id(::getpid());
  ASSERT_TRUE(own);
  EXPECT_TRUE(is_running(*own));
  EXPECT_GT(own->start_time, 0U);
  EXPECT_FALSE(is_running({own->pid, own->start_time + 1}));
}

TEST(ProcessIdentity, AZombieDoesNotRun) {
  ChildProcess child(shell("exit 0"));
  EXPECT_TRUE(eventually([&] { return !process_id(child.pid()); }));
  EXPECT_TRUE(child.wait().success());
}

TEST(EndProcess, TermIsEnoughForMost) {
  ChildProcess child(shell("exec sleep 1000"));
  EXPECT_TRUE(end_process(*process_id(child.pid()), 30));
  EXPECT_EQ(child.wait().signal, SIGTERM);
}

TEST(EndProcess, KillsWhatIgnoresTerm) {
  const test::TempFolder folder;
  const std::string file = (folder / "pid").string();
  ChildProcess child(shell("trap '' TERM; " + with_grandchild(file, "while :; do wait; done")));
  const pid_t grandchild = std::stoi(file_made_by_child(file));
  EXPECT_TRUE(end_process(*process_id(child.pid()), 0.05));
  EXPECT_EQ(child.wait().signal, SIGKILL);
  EXPECT_TRUE(eventually([&] { return !process_id(grandchild); }));
}

TEST(EndProcess, AnotherProcessOfTheSamePidIsLeftAlone) {
  ChildProcess child(shell("exec sleep 1000"));
  ProcessId other = *process_id(child.pid());
  other.start_time -= 1;
  EXPECT_TRUE(end_process(other, 0));
  EXPECT_FALSE(child.poll());
}

}  // namespace
}  // namespace ablate
