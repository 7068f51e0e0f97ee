#pragma once

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include <sched.h>
#include <sys/mount.h>

#include "runner/core/text.h"

namespace ablate::test {

/// A small file system on a folder, seen by this thread, and by the threads and processes that it
/// starts, alone. Needs the right to mount; without it mounted() is false and reason() says why.
class SmallDisk {
 public:
  /// `size` as tmpfs takes it: "64k".
  SmallDisk(std::filesystem::path folder, const std::string& size) : folder_(std::move(folder)) {
    const std::string options = "size=" + size;
    mounted_ = done(::unshare(CLONE_NEWNS), "unshare") &&
               done(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount /") &&
               done(::mount("none", folder_.c_str(), "tmpfs", 0, options.c_str()), "mount tmpfs");
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }
  const std::filesystem::path& path() const { return folder_; }

  /// Makes it read-only, or writable again. False when the kernel refuses.
  bool set_read_only(bool read_only) const {
    const unsigned long flags = read_only ? MS_REMOUNT | MS_RDONLY : MS_REMOUNT;
    return ::mount("none", folder_.c_str(), "tmpfs", flags, nullptr) == 0;
  }

 private:
  bool done(int status, const char* what) {
    if (status != 0) reason_ = cat("no small disk can be made: ", what, ": ", std::strerror(errno));
    return status == 0;
  }

  std::filesystem::path folder_;
  bool mounted_ = false;
  std::string reason_;
};

}  // namespace ablate::test
