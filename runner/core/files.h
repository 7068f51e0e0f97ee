#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace ablate {

/// Replaces the file by `bytes` so that any reader, also after a power failure, sees the old or the
/// new content whole: temporary file in the same folder, fsync, rename, fsync of the folder.
/// Throws Error with path and reason ("No space left on device"); the old file is then untouched
/// and no temporary file is left.
void write_file_atomic(const std::filesystem::path& file, std::string_view bytes);

/// The whole content. Throws Error with path and reason.
std::string read_file(const std::filesystem::path& file);

/// Makes renames and new names in a folder durable. File systems that cannot (EINVAL) are let be.
void fsync_directory(const std::filesystem::path& directory);

/// `mkdir -p`, durable. Throws Error with path and reason.
void make_directories(const std::filesystem::path& directory);

enum class FileSystemKind { Local, Nfs, Lustre, Gpfs, BeeGfs, Fuse, Unknown };

std::string_view file_system_name(FileSystemKind kind);

/// The kind of file system that holds `path`, or would hold it (its nearest existing parent):
/// SQLite's locks and memory maps are to be trusted on local ones only.
FileSystemKind file_system_kind(const std::filesystem::path& path);

/// Bytes an unprivileged process can still write where `path` is or would be.
std::uint64_t free_bytes(const std::filesystem::path& path);

/// Throws Error "PATH: WHAT: reason of `error_number`"; TransientError when the machine is at fault
/// (disk full, I/O error): the same may succeed another time.
[[noreturn]] void throw_file_error(const std::filesystem::path& path, std::string_view what,
                                   int error_number);

}  // namespace ablate
