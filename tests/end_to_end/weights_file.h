#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate::test {

/// A tensor of a safetensors file, read without LibTorch, as another program would.
struct FileTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;

  template <typename T>
  std::vector<T> values() const {
    std::vector<T> result(bytes.size() / sizeof(T));
    std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
};

/// Eight bytes of header length, the header as JSON, then the data.
inline std::map<std::string, FileTensor> read_weights(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  std::uint64_t length = 0;
  ABLATE_CHECK(bytes.size() >= sizeof length, file.string());
  std::memcpy(&length, bytes.data(), sizeof length);
  const std::size_t data = sizeof length + length;
  std::map<std::string, FileTensor> tensors;
  const auto header = nlohmann::json::parse(bytes.substr(sizeof length, length));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = entry.at("data_offsets").at(0).get<std::size_t>();
    const auto end = entry.at("data_offsets").at(1).get<std::size_t>();
    tensors[name] = {entry.at("dtype"), entry.at("shape"), bytes.substr(data + begin, end - begin)};
  }
  return tensors;
}

}  // namespace ablate::test
