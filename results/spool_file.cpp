#include "results/spool_file.h"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// The name of a new file survives a crash only once its folder is on stable storage. File systems
// that cannot do it (some FUSE ones) say EINVAL; nothing more can be done there.
void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw Error(cat(folder.string(), ": cannot open the folder: ", reason(errno)));
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0 && error != EINVAL)
    throw Error(cat(folder.string(), ": cannot sync the folder: ", reason(error)));
}

}  // namespace

SpoolFile::SpoolFile(const std::filesystem::path& path) : path_(path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw Error(cat(folder.string(), ": cannot create the folder for spools: ", error.message()));
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    const int why = errno;
    throw Error(cat(path.string(), ": cannot create the spool file: ", reason(why),
                    why == EEXIST ? " (a spool belongs to one rank of one attempt; a new attempt "
                                    "needs a new number)"
                                  : "; a writable folder is needed"));
  }
  sync_folder(folder);
}

SpoolFile::~SpoolFile() { ::close(fd_); }

std::string SpoolFile::failure(std::string_view what, int error) const {
  return cat(path_.string(), ": cannot ", what, " the spool file: ", reason(error), " (", backlog(),
             " bytes wait in memory)",
             error == ENOSPC || error == EDQUOT ? "; free some space and continue the run" : "");
}

std::string SpoolFile::write_pending() {
  while (backlog() > 0) {
    const ssize_t n = ::write(fd_, pending_.data() + written_, backlog());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure("write", errno);
    written_ += static_cast<std::size_t>(n);
  }
  pending_.clear();
  written_ = 0;
  return sync_error_;
}

std::string SpoolFile::sync() {
  if (sync_error_.empty() && ::fdatasync(fd_) != 0) sync_error_ = failure("sync", errno);
  return sync_error_;
}

}  // namespace ablate
