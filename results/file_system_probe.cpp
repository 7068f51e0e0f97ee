#include "results/file_system_probe.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

bool lock_first_byte(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return ::fcntl(fd, F_SETLK, &lock) == 0;
}

// In the child, between fork and _exit: only async-signal-safe calls. The lock of the parent must
// be seen, and the byte it wrote through its map.
[[noreturn]] void probe_as_child(const char* path, volatile char* map) {
  const int fd = ::open(path, O_RDWR);
  if (fd < 0 || lock_first_byte(fd) || (errno != EAGAIN && errno != EACCES)) ::_exit(1);
  void* own = ::mmap(nullptr, 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (own == MAP_FAILED || static_cast<volatile char*>(own)[0] != 'p') ::_exit(1);
  static_cast<volatile char*>(own)[1] = 'c';
  ::_exit(map[1] == 'c' ? 0 : 1);
}

bool probe(const std::string& path, int fd) {
  if (::ftruncate(fd, 2) != 0 || !lock_first_byte(fd)) return false;
  void* mapped = ::mmap(nullptr, 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return false;
  auto* map = static_cast<volatile char*>(mapped);
  map[0] = 'p';
  const pid_t child = ::fork();
  if (child == 0) probe_as_child(path.c_str(), map);
  int status = 1;
  if (child > 0) ::waitpid(child, &status, 0);
  const bool shared = child > 0 && status == 0 && map[1] == 'c';
  ::munmap(mapped, 2);
  return shared;
}

}  // namespace

bool has_reliable_locks(const std::filesystem::path& folder) {
  std::string path = (folder / ".ablate-probe-XXXXXX").string();
  FileDescriptor file(::mkstemp(path.data()));
  if (!file.is_open()) throw_file_error(folder, "cannot be written", errno);
  const bool locks = probe(path, file.get());
  const std::string target = path + ".renamed";
  FileDescriptor other(::open(target.c_str(), O_WRONLY | O_CREAT, 0600));
  const bool renames = other.is_open() && ::rename(path.c_str(), target.c_str()) == 0;
  ::unlink(path.c_str());
  ::unlink(target.c_str());
  return locks && renames;
}

}  // namespace ablate
