#include "runner/core/mapped_file.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"

namespace ablate {

MappedFile::MappedFile(const std::filesystem::path& file) : path_(file) {
  const FileDescriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor.is_open()) throw_file_error(file, "cannot be opened", errno);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) throw_file_error(file, "cannot be read", errno);
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses empty ranges
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_file_error(file, "cannot be mapped", errno);
  data_ = static_cast<const char*>(address);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

}  // namespace ablate
