#include "runner/worker/run_history.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/file.h>

#include "results/spool_reader.h"
#include "runner/core/files.h"

namespace ablate {

std::optional<Outcome> last_outcome(const RunPaths& paths) {
  int attempt = 0;
  while (std::filesystem::exists(paths.attempt(attempt + 1))) ++attempt;
  if (attempt == 0 || !std::filesystem::exists(paths.spool(attempt, 0))) return std::nullopt;
  std::optional<Outcome> outcome;
  SpoolReader reader(paths.spool(attempt, 0));
  while (const auto frame = reader.next()) {
    if (const auto* found = std::get_if<Outcome>(&frame->record)) outcome = *found;
  }
  return outcome;
}

std::optional<RunLock> RunLock::try_take(const RunPaths& paths) {
  const std::filesystem::path file = paths.directory / "lock";
  FileDescriptor descriptor(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!descriptor.is_open()) throw_file_error(file, "cannot be opened", errno);
  if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) == 0) return RunLock(std::move(descriptor));
  if (errno != EWOULDBLOCK) throw_file_error(file, "cannot be locked", errno);
  return std::nullopt;
}

}  // namespace ablate
