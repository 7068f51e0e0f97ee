#include "runner/core/lease.h"

#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"
#include "runner/core/log.h"
#include "runner/core/process.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds kUnreadableStale{10'000};
constexpr Milliseconds kTakeover{5};  // takes less, as a rule
constexpr int kMostRounds = 10;
constexpr std::size_t kFields = 6;

struct Holder {
  std::string host, boot, space, pid, start;
};

std::string first_line(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  const std::string text = read_file(path);
  return text.substr(0, text.find('\n'));
}

// When a process began, in the kernel's ticks; "" when there is none.
std::string start_of(const std::string& pid) {
  pid_t number = 0;
  std::from_chars(pid.data(), pid.data() + pid.size(), number);
  const auto process = process_id(number);
  return process ? cat(process->start_time) : "";
}

// Containers of one host may count processes each for itself.
std::string space_of_numbers() {
  std::error_code unknown;
  const std::string link = fs::read_symlink("/proc/self/ns/pid", unknown);
  return unknown ? "unknown" : link;
}

Holder myself() {
  const std::string pid = std::to_string(::getpid());
  return {host_name(), first_line("/proc/sys/kernel/random/boot_id"), space_of_numbers(), pid,
          start_of(pid)};
}

std::string content_of(const Holder& h) {
  return cat(h.host, " ", h.boot, " ", h.space, " ", h.pid, " ", h.start, " ",
             std::random_device()(), "\n");
}

// A lease as it is found: nothing when it was given back in between.
struct Found {
  std::string content;
  fs::file_time_type sign;  // of life, by the clock of whoever gave it

  // How far the sign is from now: on another clock it may lie in the future.
  Milliseconds age() const {
    const auto apart = fs::file_time_type::clock::now() - sign;
    return std::chrono::duration_cast<Milliseconds>(apart < apart.zero() ? -apart : apart);
  }
  std::string sight() const { return cat(content, sign.time_since_epoch().count()); }
};

// Opening comes first: it makes network file systems ask for the file's times again.
std::optional<Found> find_lease(const fs::path& path) {
  try {
    Found found{read_file(path), {}};
    std::error_code gone;
    found.sign = fs::last_write_time(path, gone);
    if (!gone) return found;
  } catch (const Error&) {
  }
  return std::nullopt;
}

enum class Verdict { Held, Doubtful, Dead };

// What can be said about the process that left a lease; `holder` is its name.
Verdict verdict_on(const Found& found, const fs::path& path, const LeaseTimes& times,
                   std::string& holder) {
  const auto fields = split(found.content, ' ');
  if (fields.size() != kFields) {  // between its creation and the first write
    holder = cat("a process that is just starting (", path.string(), ")");
    return found.age() > kUnreadableStale ? Verdict::Doubtful : Verdict::Held;
  }
  holder = cat("process ", fields[3], " on ", fields[0], " (", path.string(), ")");
  const Holder me = myself();
  if (fields[1] == me.boot && fields[2] == me.space) {
    return start_of(fields[3]) == fields[4] ? Verdict::Held : Verdict::Dead;
  }
  return found.age() > times.looks_stale ? Verdict::Doubtful : Verdict::Held;
}

// Whether a doubtful lease has shown no sign of life for as long as it takes.
bool watched_to_death(const Found& found, const LeaseTimes& times, LeaseWatch& watch) {
  const auto now = std::chrono::steady_clock::now();
  if (found.sight() != watch.sight) watch = {found.sight(), now};
  return now - watch.since >= times.watch;
}

void write_durably(const FileDescriptor& file, const fs::path& path, const std::string& content) {
  write_all(file.get(), content, path);
  if (::fsync(file.get()) != 0) throw_file_error(path, "cannot write the lease", errno);
}

// Writes the lease without a name first and then gives it one, so that whoever is killed in between
// leaves nothing. False when the file exists; nothing where the file system cannot do this.
std::optional<bool> create_whole(const fs::path& path, const std::string& content) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  FileDescriptor file(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644));
  if (!file.is_open()) return std::nullopt;
  write_durably(file, path, content);
  const std::string unnamed = cat("/proc/self/fd/", file.get());
  if (::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) {
    return true;
  }
  if (errno == EEXIST) return false;
  return std::nullopt;
}

// False when the file exists.
bool create(const fs::path& path, const std::string& content) {
  if (const auto made = create_whole(path, content)) return *made;
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.is_open()) {
    if (errno == EEXIST) return false;
    throw_file_error(path, "cannot take the lease for writing", errno);
  }
  try {
    write_durably(file, path, content);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
  return true;
}

// Removes the lease whose content was found stale, unless another process has done so; false when
// one is at it. Between the look and the removal nobody can have put another lease there: making
// one takes that there is none, and removing this one takes the guard.
bool remove_stale(const fs::path& path, const std::string& stale) {
  const fs::path guard = path.string() + ".takeover";
  if (!create(guard, content_of(myself()))) {
    std::string holder;
    const auto found = find_lease(guard);
    const bool left = found && (found->age() > kUnreadableStale ||
                                verdict_on(*found, guard, {}, holder) == Verdict::Dead);
    if (left) ::unlink(guard.c_str());  // by a process that was killed at it
    return false;
  }
  const auto found = find_lease(path);
  if (found && found->content == stale) ::unlink(path.c_str());
  ::unlink(guard.c_str());
  return true;
}

}  // namespace

class Lease::Held {
 public:
  Held(fs::path path, std::string content, Milliseconds heartbeat)
      : path_(std::move(path)), content_(std::move(content)), heartbeat_(heartbeat) {
    thread_ = std::jthread([this](const std::stop_token& over) { live(over); });
  }
  ~Held() {
    thread_.request_stop();
    thread_.join();
    if (is_ours()) ::unlink(path_.c_str());
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  const fs::path& path() const { return path_; }
  bool is_ours() const {
    const auto found = find_lease(path_);
    return found && found->content == content_;
  }

 private:
  void live(const std::stop_token& over) {
    std::mutex mutex;
    std::condition_variable_any ending;
    std::unique_lock lock(mutex);
    while (!ending.wait_for(lock, over, heartbeat_, [&] { return over.stop_requested(); })) {
      if (is_ours()) ::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);
    }
  }

  const fs::path path_;
  const std::string content_;
  const Milliseconds heartbeat_;
  std::jthread thread_;
};

Lease::Lease(std::unique_ptr<Held> held) : held_(std::move(held)) {}
Lease::Lease(Lease&&) noexcept = default;
Lease& Lease::operator=(Lease&&) noexcept = default;
Lease::~Lease() = default;

std::optional<Lease> Lease::try_take(const fs::path& path, std::string& holder, LeaseWatch& watch,
                                     const LeaseTimes& times) {
  make_directories(path.parent_path());
  for (int round = 0; round < kMostRounds; ++round) {
    if (const auto found = find_lease(path)) {
      const Verdict verdict = verdict_on(*found, path, times, holder);
      if (verdict != Verdict::Doubtful) watch = {};
      if (verdict == Verdict::Held) return std::nullopt;
      if (verdict == Verdict::Doubtful && !watched_to_death(*found, times, watch)) {
        return std::nullopt;
      }
      if (!remove_stale(path, found->content)) {
        std::this_thread::sleep_for(kTakeover);
        continue;
      }
    }
    const std::string content = content_of(myself());
    if (create(path, content)) {
      watch = {};
      return Lease(std::make_unique<Held>(path, content, times.heartbeat));
    }
  }
  return std::nullopt;
}

Lease Lease::take(const fs::path& path, const std::string& what, const LeaseTimes& times) {
  std::string holder = cat("another process (", path.string(), ")");
  LeaseWatch watch;
  auto lease = try_take(path, holder, watch, times);
  if (!lease && !watch.sight.empty()) {
    log_warning(cat(holder, " has shown no sign of life for long; it is watched for ",
                    std::chrono::duration_cast<std::chrono::seconds>(times.watch).count(),
                    " s before its work is taken over"));
  }
  const std::string first_sight = watch.sight;
  while (!lease && !first_sight.empty() && watch.sight == first_sight) {
    std::this_thread::sleep_for(std::min(times.heartbeat, times.watch) / 4);
    lease = try_take(path, holder, watch, times);
  }
  if (lease) return std::move(*lease);
  throw Error(cat(what, " is being written by ", holder, "; wait for it, or end it"));
}

std::optional<std::string> Lease::holder(const fs::path& path) {
  std::string holder;
  const auto found = find_lease(path);
  if (!found || verdict_on(*found, path, {}, holder) != Verdict::Held) return std::nullopt;
  return holder;
}

void Lease::check() const {
  if (!held_->is_ours()) {
    throw Error(cat(held_->path().string(), ": another process has taken over this lease"));
  }
}

}  // namespace ablate
