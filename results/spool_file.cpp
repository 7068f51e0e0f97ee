#include "results/spool_file.h"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/machine_fault.h"

namespace ablate {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

}  // namespace

SpoolFile::SpoolFile(const std::filesystem::path& path) : path_(path) {
  make_directories(path.parent_path());
  file_ = FileDescriptor(
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file_.is_open()) {
    const int why = errno;
    const std::string text = cat(path.string(), ": cannot create the spool file: ", reason(why),
                                 why == EEXIST ? " (a spool belongs to one rank of one attempt; a "
                                                 "new attempt needs a new number)"
                                               : "; a writable folder is needed");
    if (is_machine_fault(why)) throw TransientError(text);
    throw Error(text);
  }
  fsync_directory(path.has_parent_path() ? path.parent_path() : ".");
}

std::string SpoolFile::failure(std::string_view what, int error) const {
  return cat(path_.string(), ": cannot ", what, " the spool file: ", reason(error), " (", backlog(),
             " bytes wait in memory)",
             error == ENOSPC || error == EDQUOT ? "; free some space and continue the run" : "");
}

std::string SpoolFile::write_pending() {
  while (backlog() > 0) {
    const ssize_t n = ::write(file_.get(), pending_.data() + written_, backlog());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure("write", errno);
    written_ += static_cast<std::size_t>(n);
  }
  pending_.clear();
  written_ = 0;
  return sync_error_;
}

std::string SpoolFile::sync() {
  if (sync_error_.empty() && ::fdatasync(file_.get()) != 0) sync_error_ = failure("sync", errno);
  return sync_error_;
}

}  // namespace ablate
