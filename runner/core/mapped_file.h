#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace ablate {

/// A file's content as read-only memory, shared with every process that maps it. Immutable after
/// construction, so any thread may read.
class MappedFile {
 public:
  /// Throws Error with path and reason.
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ablate
