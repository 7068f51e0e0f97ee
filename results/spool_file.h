#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "runner/core/file_descriptor.h"

namespace ablate {

/// The file below a SpoolWriter: appends, and keeps what could not be written. Used by one thread.
class SpoolFile {
 public:
  /// Creates the file (and its folder) exclusively. Throws Error.
  explicit SpoolFile(const std::filesystem::path& path);

  /// Frames to be written, in order; append to it freely.
  std::string& pending() { return pending_; }
  /// Bytes not written yet.
  std::size_t backlog() const { return pending_.size() - written_; }

  /// Writes what is pending; after a failure the next call goes on at the byte where this one
  /// stopped, so a partial write leaves no damage. Returns an empty text or "path: reason".
  std::string write_pending();
  /// fdatasync. Its failure is for ever: the kernel may have dropped the pages and will report
  /// success for them next time.
  std::string sync();

 private:
  std::string failure(std::string_view what, int error) const;

  std::filesystem::path path_;
  FileDescriptor file_;
  std::string pending_;
  std::size_t written_ = 0;
  std::string sync_error_;
};

}  // namespace ablate
