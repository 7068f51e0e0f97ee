#include "results/lease.h"

#include <cerrno>
#include <charconv>
#include <chrono>
#include <random>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr auto kForeignStale = std::chrono::minutes(10);
constexpr auto kUnreadableStale = std::chrono::seconds(10);

struct Holder {
  std::string host, boot, pid, start;
};

std::string read_line(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  std::string text = read_file(path);
  return text.substr(0, text.find('\n'));
}

// When a process began, in the kernel's ticks; "" when there is none.
std::string start_of(const std::string& pid) {
  pid_t number = 0;
  std::from_chars(pid.data(), pid.data() + pid.size(), number);
  const auto process = process_id(number);
  return process ? cat(process->start_time) : "";
}

Holder myself() {
  const std::string pid = std::to_string(::getpid());
  return {host_name(), read_line("/proc/sys/kernel/random/boot_id"), pid, start_of(pid)};
}

std::string content_of(const Holder& h) {
  return cat(h.host, " ", h.boot, " ", h.pid, " ", h.start, " ", std::random_device()(), "\n");
}

std::chrono::nanoseconds age(const fs::path& path) {
  std::error_code error;
  const auto written = fs::last_write_time(path, error);
  return error ? std::chrono::nanoseconds(0) : fs::file_time_type::clock::now() - written;
}

// Whether the process that wrote `content` is certainly or, on other hosts, presumably gone.
bool is_stale(const fs::path& path, const std::string& content, std::string& holder) {
  const auto fields = split(content, ' ');
  if (fields.size() != 5) {  // between its creation and the first write
    holder = cat("a process that is just starting (", path.string(), ")");
    return age(path) > kUnreadableStale;
  }
  holder = cat("process ", fields[2], " on ", fields[0], " (", path.string(), ")");
  const Holder me = myself();
  if (fields[0] != me.host) return age(path) > kForeignStale;
  return fields[1] != me.boot || start_of(fields[2]) != fields[3];
}

// Removes the lease whose content was found stale. Another process may do the same and have taken
// it meanwhile: then what was moved away is put back.
void remove_stale(const fs::path& path, const std::string& stale) {
  const fs::path moved = path.string() + cat(".stale.", ::getpid());
  if (::rename(path.c_str(), moved.c_str()) != 0) return;
  if (read_file(moved) != stale) (void)::link(moved.c_str(), path.c_str());
  ::unlink(moved.c_str());
}

void write_all(int file, const fs::path& path, const std::string& content) {
  const auto size = static_cast<ssize_t>(content.size());
  if (::write(file, content.data(), content.size()) != size || ::fsync(file) != 0) {
    throw_file_error(path, "cannot write the lease", errno);
  }
}

// Writes the lease without a name first and then gives it one, so that whoever is killed in between
// leaves nothing. False when the file exists; nothing where the file system cannot do this.
std::optional<bool> create_whole(const fs::path& path, const std::string& content) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  FileDescriptor file(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644));
  if (!file.is_open()) return std::nullopt;
  write_all(file.get(), path, content);
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
    write_all(file.get(), path, content);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
  return true;
}

std::string content_or_nothing(const fs::path& path) {
  try {
    return read_file(path);
  } catch (const Error&) {
    return {};  // given back in between
  }
}

}  // namespace

Lease::Lease(fs::path path, std::string content)
    : path_(std::move(path)), content_(std::move(content)) {}

Lease::Lease(Lease&& other) noexcept
    : path_(std::move(other.path_)), content_(std::exchange(other.content_, {})) {}

std::optional<Lease> Lease::try_take(const fs::path& path, std::string& holder) {
  make_directories(path.parent_path());
  const std::string content = content_of(myself());
  for (int round = 0; round < 3; ++round) {
    if (create(path, content)) return Lease(path, content);
    const std::string found = content_or_nothing(path);
    if (!is_stale(path, found, holder)) return std::nullopt;
    remove_stale(path, found);
  }
  return std::nullopt;
}

Lease Lease::take(const fs::path& path) {
  std::string holder;
  if (auto lease = try_take(path, holder)) return std::move(*lease);
  throw Error(cat("the results database is being written by ", holder, "; wait for it, or end it"));
}

std::optional<std::string> Lease::holder(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  std::string holder;
  if (is_stale(path, content_or_nothing(path), holder)) return std::nullopt;
  return holder;
}

Lease::~Lease() {
  if (!content_.empty() && content_or_nothing(path_) == content_) ::unlink(path_.c_str());
}

void Lease::renew() {
  if (content_or_nothing(path_) != content_)
    throw Error(cat(path_.string(), ": another process has taken over the lease for writing"));
  ::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);
}

fs::path ingest_lease(const fs::path& database) { return database.string() + ".ingest-lease"; }

}  // namespace ablate
