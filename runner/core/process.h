#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace ablate {

/// How a child ended.
struct ExitStatus {
  int code = 0;    ///< exit status; 128 + signal when a signal ended it, as shells say
  int signal = 0;  ///< 0 when it exited by itself

  bool success() const { return code == 0; }
  /// "exit status 3" or "signal 9 (Killed)".
  std::string str() const;
};

struct ProcessOptions {
  std::vector<std::string> arguments;  ///< the first is looked up in PATH unless it has a slash
  std::vector<std::pair<std::string, std::string>> environment;  ///< added to or replacing ours
  std::filesystem::path working_folder;                          ///< empty: ours
  std::filesystem::path output_file;  ///< standard output is appended here; empty: ours
  std::filesystem::path error_file;   ///< the same for standard error; may be the same file
  std::vector<int> cpus;              ///< the child may run on these only; empty: on all of ours
  /// The child gets SIGKILL when the *thread* that started it ends, however that comes about.
  bool die_with_parent = false;
};

/// A child in a process group of its own, with default signal dispositions and no standard input (a
/// background group that reads the terminal would be stopped). When the child has ended,
/// what is left of its group is killed, so a job ends whole; destroying the object while the child
/// runs kills the group. Not thread-safe.
class ChildProcess {
 public:
  /// Throws Error naming the program and the reason when it cannot be started.
  explicit ChildProcess(const ProcessOptions& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  pid_t pid() const { return pid_; }

  /// The status when the child has ended.
  std::optional<ExitStatus> poll();
  ExitStatus wait();
  /// The status when the child ends within `seconds`.
  std::optional<ExitStatus> wait_for(double seconds);

  /// Sends a signal to the whole group; false when the child has ended already.
  bool signal_group(int signal);

 private:
  friend struct ChildStarter;
  ChildProcess() = default;
  void reap(int flags);

  pid_t pid_ = -1;
  std::optional<ExitStatus> status_;
};

struct CapturedRun {
  ExitStatus status;
  std::string output;
  std::string errors;
  bool timed_out = false;  ///< the group was killed
};

/// Runs a program to its end with `input` as its standard input and returns what it wrote; the
/// files of the options are ignored. `timeout_s` <= 0: no limit. Throws Error when it cannot be
/// started.
CapturedRun run_and_capture(const ProcessOptions& options, std::string_view input = {},
                            double timeout_s = 0);

/// The calling process gets `signal` when the thread that started it ends.
void die_with_parent(int signal);

/// A process that a record on disk can name without mistaking a later process of the same pid for
/// it.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  ///< clock ticks since boot (/proc/PID/stat, field 22)

  bool operator==(const ProcessId&) const = default;
};

/// Identity of a process that runs now (a zombie does not).
std::optional<ProcessId> process_id(pid_t pid);
bool is_running(const ProcessId& process);

/// Ends what a predecessor left: TERM to the process (to its group, when it leads one), after
/// `grace_s` seconds KILL. True when it has ended.
bool end_process(const ProcessId& process, double grace_s);

/// This machine's name.
std::string host_name();

/// The CPUs this process may run on (its affinity mask), ascending.
std::vector<int> available_cpus();

}  // namespace ablate
