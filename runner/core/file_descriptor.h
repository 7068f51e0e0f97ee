#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace ablate {

/// Owner of one open file of the operating system. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.descriptor_) {
    other.descriptor_ = -1;
  }
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { close(); }

  bool is_open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  /// False, with errno set, when the operating system reports a failure of earlier writes.
  bool close();

 private:
  int descriptor_ = -1;
};

/// Everything from the current position on. Throws Error naming `path` and the reason.
std::string read_to_end(int descriptor, const std::filesystem::path& path);

/// Writes all bytes. Throws Error naming `path` and the reason.
void write_all(int descriptor, std::string_view bytes, const std::filesystem::path& path);

}  // namespace ablate
