#include "runner/core/process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"

namespace ablate {

namespace {

using Clock = std::chrono::steady_clock;

/// What the child reports through a pipe when it cannot become the program.
struct StartFailure {
  enum Stage : int { Affinity, Folder, Program } stage;
  int error_number;
};

/// Everything the child needs, made before fork(): between fork() and exec() only async-signal-safe
/// calls are allowed in a program with threads, so no allocation.
struct Launch {
  std::vector<std::string> environment;
  std::vector<char*> argument_pointers, environment_pointers;
  const char* folder = nullptr;
  cpu_set_t cpus{};
  bool has_cpus = false;
  bool die_with_parent = false;
  pid_t parent = 0;
  std::array<int, 3> streams{};  // -1: ours
  int report = -1;
};

std::vector<std::string> merged_environment(const ProcessOptions& options) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : options.environment) {
      replaced |= text.substr(0, text.find('=')) == name;
    }
    if (!replaced) merged.emplace_back(text);
  }
  for (const auto& [name, value] : options.environment) merged.push_back(cat(name, "=", value));
  return merged;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

[[noreturn]] void give_up(const Launch& launch, StartFailure::Stage stage) {
  const StartFailure failure{stage, errno};
  [[maybe_unused]] const ssize_t ignored = ::write(launch.report, &failure, sizeof failure);
  ::_exit(127);
}

[[noreturn]] void become_program(const Launch& launch) {
  ::setpgid(0, 0);
  if (launch.die_with_parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != launch.parent) ::_exit(127);  // it ended before prctl
  }
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (launch.has_cpus && ::sched_setaffinity(0, sizeof launch.cpus, &launch.cpus) != 0) {
    give_up(launch, StartFailure::Affinity);
  }
  if (launch.folder != nullptr && ::chdir(launch.folder) != 0) {
    give_up(launch, StartFailure::Folder);
  }
  for (int stream = 0; stream < 3; ++stream) {
    const int source = launch.streams[static_cast<std::size_t>(stream)];
    if (source >= 0) ::dup2(source, stream);
  }
  ::execvpe(launch.argument_pointers[0], launch.argument_pointers.data(),
            launch.environment_pointers.data());
  give_up(launch, StartFailure::Program);
}

[[noreturn]] void throw_start_failure(const ProcessOptions& options, const StartFailure& failure) {
  const std::string& program = options.arguments.front();
  if (failure.stage == StartFailure::Folder) {
    throw_file_error(options.working_folder, cat(program, " cannot start in it"),
                     failure.error_number);
  }
  const char* what =
      failure.stage == StartFailure::Affinity ? "cannot be bound to CPUs " : "cannot be started";
  throw_file_error(program,
                   cat(what, failure.stage == StartFailure::Affinity ? join(options.cpus) : ""),
                   failure.error_number);
}

FileDescriptor open_log(const std::filesystem::path& file) {
  if (file.empty()) return {};
  FileDescriptor opened(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!opened.is_open()) throw_file_error(file, "cannot be written", errno);
  return opened;
}

FileDescriptor memory_file(const char* name) {
  FileDescriptor opened(::memfd_create(name, MFD_CLOEXEC));
  if (!opened.is_open()) throw_file_error(name, "memory file cannot be made", errno);
  return opened;
}

std::string content_of(const FileDescriptor& file) {
  ABLATE_CHECK(::lseek(file.get(), 0, SEEK_SET) == 0);
  return read_to_end(file.get(), "output of a program");
}

}  // namespace

/// Starts a child on open files; -1 leaves ours.
struct ChildStarter {
  static ChildProcess start(const ProcessOptions& options, std::array<int, 3> streams);
};

ChildProcess ChildStarter::start(const ProcessOptions& options, std::array<int, 3> streams) {
  ABLATE_CHECK(!options.arguments.empty());
  Launch launch;
  launch.environment = merged_environment(options);
  launch.argument_pointers = pointers(options.arguments);
  launch.environment_pointers = pointers(launch.environment);
  if (!options.working_folder.empty()) launch.folder = options.working_folder.c_str();
  for (const int cpu : options.cpus) CPU_SET(static_cast<std::size_t>(cpu), &launch.cpus);
  launch.has_cpus = !options.cpus.empty();
  launch.die_with_parent = options.die_with_parent;
  launch.parent = ::getpid();
  launch.streams = streams;

  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw_file_error(options.arguments[0], "cannot be started", errno);
  }
  const FileDescriptor report_in(ends[0]);
  FileDescriptor report_out(ends[1]);
  launch.report = report_out.get();

  ChildProcess child;
  child.pid_ = ::fork();
  if (child.pid_ == 0) become_program(launch);
  if (child.pid_ < 0) throw_file_error(options.arguments[0], "cannot be started", errno);
  ::setpgid(child.pid_, child.pid_);  // whoever is first; EACCES after exec means it is done
  report_out.close();
  StartFailure failure{};
  const std::string report = read_to_end(report_in.get(), options.arguments[0]);
  if (report.size() < sizeof failure) return child;
  std::memcpy(&failure, report.data(), sizeof failure);
  throw_start_failure(options, failure);  // the destructor of `child` reaps it
}

std::string ExitStatus::str() const {
  if (signal == 0) return cat("exit status ", code);
  return cat("signal ", signal, " (", ::strsignal(signal), ")");
}

ChildProcess::ChildProcess(const ProcessOptions& options) {
  const FileDescriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const FileDescriptor output = open_log(options.output_file);
  const bool shared = !options.error_file.empty() && options.error_file == options.output_file;
  const FileDescriptor errors = shared ? FileDescriptor() : open_log(options.error_file);
  *this =
      ChildStarter::start(options, {nothing.get(), output.get(), (shared ? output : errors).get()});
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(status_, other.status_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ <= 0 || status_) return;
  ::kill(-pid_, SIGKILL);
  ::kill(pid_, SIGKILL);  // its group may not exist yet
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<ExitStatus> ChildProcess::poll() {
  if (!status_) reap(WNOHANG);
  return status_;
}

ExitStatus ChildProcess::wait() {
  if (!status_) reap(0);
  return *status_;
}

void ChildProcess::reap(int flags) {
  // Looking first without reaping: the zombie keeps the group's number from being used anew while
  // its remains are killed.
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | flags) != 0) {
    ABLATE_CHECK(errno == EINTR, "child ", pid_, " was reaped by somebody else");
  }
  if (info.si_pid == 0) return;
  ::kill(-pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0) ABLATE_CHECK(errno == EINTR);
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  status_ = ExitStatus{signal != 0 ? 128 + signal : WEXITSTATUS(status), signal};
}

std::optional<ExitStatus> ChildProcess::wait_for(double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  auto pause = std::chrono::microseconds(200);
  while (!poll() && Clock::now() < end) {
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::microseconds(10'000));
  }
  return status_;
}

bool ChildProcess::signal_group(int signal) { return !poll() && ::kill(-pid_, signal) == 0; }

CapturedRun run_and_capture(const ProcessOptions& options, std::string_view input,
                            double timeout_s) {
  // Files in memory instead of pipes: no deadlock between the streams, no SIGPIPE, and no waiting
  // for a grandchild that keeps a pipe open.
  const FileDescriptor in = memory_file("input");
  const FileDescriptor out = memory_file("output");
  const FileDescriptor err = memory_file("errors");
  write_all(in.get(), input, "input of a program");
  ABLATE_CHECK(::lseek(in.get(), 0, SEEK_SET) == 0);
  ChildProcess child = ChildStarter::start(options, {in.get(), out.get(), err.get()});
  CapturedRun run;
  if (timeout_s > 0 && !child.wait_for(timeout_s)) run.timed_out = child.signal_group(SIGKILL);
  run.status = child.wait();
  run.output = content_of(out);
  run.errors = content_of(err);
  return run;
}

}  // namespace ablate
