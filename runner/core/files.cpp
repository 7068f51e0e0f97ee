#include "runner/core/files.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/machine_fault.h"

namespace ablate {

namespace fs = std::filesystem;

namespace {

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

/// Opens a file of a name nobody uses in the folder of `file`.
std::pair<FileDescriptor, fs::path> open_temporary(const fs::path& file) {
  static std::atomic<unsigned> counter{0};
  for (;;) {
    fs::path name = folder_of(file) / cat(".", file.filename().string(), ".", ::getpid(), ".",
                                          counter.fetch_add(1), ".tmp");
    FileDescriptor opened(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (opened.is_open()) return {std::move(opened), std::move(name)};
    if (errno != EEXIST) throw_file_error(file, "cannot be written", errno);
  }
}

fs::path nearest_existing(fs::path path) {
  path = fs::absolute(path);
  std::error_code ignored;
  while (!fs::exists(path, ignored) && path != path.root_path()) path = path.parent_path();
  return path;
}

}  // namespace

void throw_file_error(const fs::path& path, std::string_view what, int error_number) {
  const std::string text =
      cat(path.string(), ": ", what, ": ", std::generic_category().message(error_number));
  if (is_machine_fault(error_number)) throw TransientError(text);
  throw Error(text);
}

void write_file_atomic(const fs::path& file, std::string_view bytes) {
  auto [temporary, name] = open_temporary(file);
  try {
    write_all(temporary.get(), bytes, file);
    if (::fsync(temporary.get()) != 0) throw_file_error(file, "cannot be written", errno);
    // Network file systems may report a full disk only here.
    if (!temporary.close()) throw_file_error(file, "cannot be written", errno);
    if (::rename(name.c_str(), file.c_str()) != 0) {
      throw_file_error(file, "cannot be replaced", errno);
    }
  } catch (...) {
    ::unlink(name.c_str());
    throw;
  }
  fsync_directory(folder_of(file));
}

std::string read_file(const fs::path& file) {
  const FileDescriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!in.is_open()) throw_file_error(file, "cannot be read", errno);
  return read_to_end(in.get(), file);
}

void fsync_directory(const fs::path& directory) {
  const FileDescriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.is_open()) throw_file_error(directory, "cannot be opened", errno);
  if (::fsync(opened.get()) != 0 && errno != EINVAL) {
    throw_file_error(directory, "cannot be made durable", errno);
  }
}

void make_directories(const fs::path& directory) {
  if (directory.empty()) return;
  std::error_code error;
  if (fs::is_directory(directory, error)) return;
  make_directories(directory.parent_path());
  if (::mkdir(directory.c_str(), 0777) == 0) {
    fsync_directory(folder_of(directory));
    return;
  }
  const int reason = errno;  // another process may have made it meanwhile
  if (fs::is_directory(directory, error)) return;
  throw_file_error(directory, "cannot be made", reason);
}

std::string_view file_system_name(FileSystemKind kind) {
  static constexpr std::array<std::string_view, 7> kNames = {"local",  "nfs",  "lustre", "gpfs",
                                                             "beegfs", "fuse", "unknown"};
  return kNames[static_cast<std::size_t>(kind)];
}

FileSystemKind file_system_kind(const fs::path& path) {
  struct statfs facts {};
  const fs::path existing = nearest_existing(path);
  if (::statfs(existing.c_str(), &facts) != 0) {
    throw_file_error(existing, "file system cannot be read", errno);
  }
  switch (static_cast<std::uint32_t>(facts.f_type)) {
    case 0x6969:
      return FileSystemKind::Nfs;
    case 0x0bd00bd0:
      return FileSystemKind::Lustre;
    case 0x47504653:
      return FileSystemKind::Gpfs;
    case 0x19830326:
      return FileSystemKind::BeeGfs;
    case 0x65735546:
      return FileSystemKind::Fuse;
    case 0xef53:      // ext2, ext3, ext4
    case 0x58465342:  // xfs
    case 0x9123683e:  // btrfs
    case 0x01021994:  // tmpfs
    case 0x794c7630:  // overlayfs
    case 0x2fc12fc1:  // zfs
    case 0xf2f52010:  // f2fs
      return FileSystemKind::Local;
    default:
      return FileSystemKind::Unknown;
  }
}

std::uint64_t free_bytes(const fs::path& path) {
  struct statvfs facts {};
  const fs::path existing = nearest_existing(path);
  if (::statvfs(existing.c_str(), &facts) != 0) {
    throw_file_error(existing, "free space cannot be read", errno);
  }
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

}  // namespace ablate
