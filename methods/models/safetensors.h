#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// A safetensors file, mapped read-only: u64 header length, JSON header, raw little-endian data
/// (https://github.com/huggingface/safetensors). Element types F64, F32, F16, BF16, I64, U8.
class SafetensorsFile {
 public:
  /// Checks the whole header: types, shapes, sizes, ranges. Throws Error naming file, tensor and
  /// what is wrong.
  explicit SafetensorsFile(const std::filesystem::path& file);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  std::vector<std::string> names() const;
  bool has(const std::string& name) const { return entries_.contains(name); }
  /// A copy of one tensor. Throws Error when there is none of that name.
  at::Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Entry {
    at::ScalarType type;
    std::vector<std::int64_t> shape;
    std::uint64_t begin, end;  // in the data
  };
  void map();
  void read_header();

  std::filesystem::path path_;
  const char* bytes_ = nullptr;
  std::uint64_t size_ = 0, data_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes the tensors in the given order, atomically. Throws Error on another element type and when
/// the file cannot be written.
void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace ablate
