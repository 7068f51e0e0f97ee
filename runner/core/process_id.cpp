#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/process.h"

namespace ablate {

std::optional<ProcessId> process_id(pid_t pid) {
  std::ifstream file(cat("/proc/", pid, "/stat"));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  // Field 2 is the name in parentheses and may hold anything; field 3 (the state) follows the last
  // closing one. The start time is field 22.
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string field;
  fields >> field;
  if (field == "Z" || field == "X") return std::nullopt;
  for (int number = 4; number <= 22; ++number) fields >> field;
  if (!fields) return std::nullopt;
  return ProcessId{pid, std::stoull(field)};
}

bool is_running(const ProcessId& process) { return process_id(process.pid) == process; }

bool end_process(const ProcessId& process, double grace_s) {
  if (!is_running(process)) return true;
  const bool leads_group = ::getpgid(process.pid) == process.pid && ::getpgrp() != process.pid;
  const pid_t target = leads_group ? -process.pid : process.pid;
  const auto ended_within = [&](double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (is_running(process)) {
      if (std::chrono::steady_clock::now() >= end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  };
  ::kill(target, SIGTERM);
  const bool ended = ended_within(grace_s);
  if (leads_group || !ended) ::kill(target, SIGKILL);  // also what the leader left behind
  return ended || ended_within(5.0);
}

void die_with_parent(int signal) { ABLATE_CHECK(::prctl(PR_SET_PDEATHSIG, signal) == 0); }

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::vector<int> available_cpus() {
  using Mask = std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)>;
  for (std::size_t count = CPU_SETSIZE;; count *= 2) {  // the kernel's mask may be the larger one
    const Mask mask(CPU_ALLOC(count), [](cpu_set_t* set) { CPU_FREE(set); });
    const std::size_t bytes = CPU_ALLOC_SIZE(count);
    if (::sched_getaffinity(0, bytes, mask.get()) != 0) {
      ABLATE_CHECK(errno == EINVAL && count < (std::size_t{1} << 24));
      continue;
    }
    std::vector<int> cpus;
    for (std::size_t cpu = 0; cpu < count; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, mask.get())) cpus.push_back(static_cast<int>(cpu));
    }
    return cpus;
  }
}

}  // namespace ablate
