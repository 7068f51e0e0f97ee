#include "methods/models/safetensors.h"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

namespace {

struct ElementType {
  const char* name;
  at::ScalarType type;
  std::uint64_t bytes;
};

constexpr std::array<ElementType, 6> kTypes = {{{"F64", at::kDouble, 8},
                                                {"F32", at::kFloat, 4},
                                                {"F16", at::kHalf, 2},
                                                {"BF16", at::kBFloat16, 2},
                                                {"I64", at::kLong, 8},
                                                {"U8", at::kByte, 1}}};

// The limit of the format's own implementation, against absurd lengths of files of another kind.
constexpr std::uint64_t kLongestHeader = 100'000'000;

[[noreturn]] void refuse_file(const std::filesystem::path& file, const std::string& what) {
  throw Error(cat(file.string(), ": not a valid safetensors file: ", what));
}

const ElementType& element_type(const std::filesystem::path& file, const std::string& tensor,
                                const std::string& name) {
  for (const ElementType& type : kTypes) {
    if (name == type.name) return type;
  }
  refuse_file(file, cat("tensor \"", tensor, "\" has type ", name,
                        ", accepted: F64, F32, F16, BF16, I64, U8"));
}

/// Number of elements, or nothing when it does not fit.
std::optional<std::uint64_t> element_count(const std::vector<std::int64_t>& shape) {
  std::uint64_t count = 1;
  for (const std::int64_t side : shape) {
    if (side < 0) return std::nullopt;
    if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(side), &count))
      return std::nullopt;
  }
  return count;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& file) : path_(file) {
  map();
  try {
    read_header();
  } catch (const nlohmann::json::exception& error) {
    ::munmap(const_cast<char*>(bytes_), size_);
    refuse_file(path_, cat("header: ", error.what()));
  } catch (...) {
    ::munmap(const_cast<char*>(bytes_), size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<char*>(bytes_), size_); }

void SafetensorsFile::map() {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw_file_error(path_, "cannot open", errno);
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  size_ = known ? static_cast<std::uint64_t>(status.st_size) : 0;
  void* mapped =
      size_ >= 8 ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  const int reason = errno;
  ::close(descriptor);
  if (known && size_ < 8) refuse_file(path_, cat(size_, " bytes are too few for a header"));
  if (mapped == MAP_FAILED) throw_file_error(path_, "cannot map", reason);
  bytes_ = static_cast<const char*>(mapped);
}

void SafetensorsFile::read_header() {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes_, sizeof length);
  if (length > size_ - 8 || length > kLongestHeader) {
    refuse_file(path_, cat("a header of ", length, " bytes in a file of ", size_));
  }
  data_ = 8 + length;
  const auto header = nlohmann::json::parse(bytes_ + 8, bytes_ + data_);
  for (const auto& [name, fields] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = fields.get<std::map<std::string, std::string>>();
      continue;
    }
    const ElementType& type = element_type(path_, name, fields.at("dtype").get<std::string>());
    const auto offsets = fields.at("data_offsets").get<std::array<std::uint64_t, 2>>();
    Entry entry{type.type, fields.at("shape").get<std::vector<std::int64_t>>(), offsets[0],
                offsets[1]};
    if (entry.begin > entry.end || entry.end > size_ - data_) {
      refuse_file(path_, cat("tensor \"", name, "\" lies at bytes ", entry.begin, " to ", entry.end,
                             " of ", size_ - data_, " (truncated?)"));
    }
    const auto count = element_count(entry.shape);
    const std::uint64_t held = entry.end - entry.begin;
    if (!count || held % type.bytes != 0 || held / type.bytes != *count) {
      refuse_file(path_, cat("tensor \"", name, "\" of shape (", join(entry.shape), ") and type ",
                             type.name, " has ", held, " bytes"));
    }
    entries_.emplace(name, std::move(entry));
  }
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw Error(cat(path_.string(), ": no tensor \"", name, "\"", suggestion(name, names())));
  }
  const Entry& entry = found->second;
  at::Tensor result = at::empty(entry.shape, entry.type);
  // Copied, because offsets need not be aligned to the elements.
  std::memcpy(result.mutable_data_ptr(), bytes_ + data_ + entry.begin, entry.end - entry.begin);
  return result;
}

void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t end = 0;
  for (const auto& [name, tensor] : tensors) {
    const ElementType* type = nullptr;
    for (const ElementType& candidate : kTypes) {
      if (candidate.type == tensor.scalar_type()) type = &candidate;
    }
    if (!type)
      throw Error(cat(file.string(), ": tensor \"", name, "\" has type ", tensor.dtype().name()));
    ABLATE_CHECK(!header.contains(name), "tensor \"", name, "\" twice");
    const std::uint64_t begin = end;
    end += static_cast<std::uint64_t>(tensor.numel()) * type->bytes;
    header[name] = {
        {"dtype", type->name}, {"shape", tensor.sizes().vec()}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the data aligned for readers that map it
  const std::uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  bytes.reserve(8 + length + end);
  bytes += text;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().cpu().contiguous();
    bytes.append(static_cast<const char*>(plain.const_data_ptr()), plain.nbytes());
  }
  write_file_atomic(file, bytes);
}

}  // namespace ablate
