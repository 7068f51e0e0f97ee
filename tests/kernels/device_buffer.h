#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#if ABLATE_HAS_CUDA

#include <cuda_runtime_api.h>

#include "methods/kernels/bfloat16.h"
#include "methods/kernels/cuda_check.h"

namespace ablate::kernels::test {

inline bool has_gpu() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  cudaGetLastError();  // no device is no error
  return found;
}

/// Fixture of suites that need a device: `using AddNormGpu = GpuTest;`, then TEST_F(AddNormGpu,
/// ...). Skips where there is none.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no CUDA device";
  }
  /// A fault of the kernels shows here, not in some later test.
  void TearDown() override {
    if (has_gpu()) check_cuda(cudaDeviceSynchronize());
  }
};

/// Whether an environment variable of scripts/gpu-sanitize has that value.
inline bool asked_for(const char* variable, const std::string& value) {
  const char* text = std::getenv(variable);
  return text != nullptr && text == value;
}

/// Whether a case of so many elements is left out: tools that watch every access of a kernel make
/// it a thousand times slower, and a small odd case goes through the same lines.
inline bool too_large_here(std::int64_t elements) {
  constexpr std::int64_t kSmall = 40'000;
  static const bool small = asked_for("ABLATE_TEST_SIZES", "small");
  return small && elements > kSmall;
}

/// `count` elements on the device between two guards. Everything begins as bytes 0xff, which is NaN
/// in every float format (and -1 in integers): what a kernel reads but nobody wrote shows in its
/// results, what it writes outside of the buffer shows in guards_intact(). ABLATE_TEST_POISON=0
/// leaves the elements unwritten, so that a tool which knows written memory sees such reads too.
template <typename T>
class DeviceBuffer {
 public:
  static constexpr std::size_t kGuard = 1024;

  /// `shift` elements behind an address aligned to 1024 bytes.
  explicit DeviceBuffer(std::size_t count, std::size_t shift = 0)
      : count_(count), begin_(kGuard + shift * sizeof(T)) {
    check_cuda(cudaMalloc(&memory_, bytes()));
    fill(0, begin_);
    fill(begin_ + count_ * sizeof(T), kGuard);
    if (!asked_for("ABLATE_TEST_POISON", "0")) fill(begin_, count_ * sizeof(T));
  }
  explicit DeviceBuffer(const std::vector<T>& values, std::size_t shift = 0)
      : DeviceBuffer(values.size(), shift) {
    upload(values);
  }
  ~DeviceBuffer() { cudaFree(memory_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* data() { return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + begin_); }
  const T* data() const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(memory_) + begin_);
  }
  std::size_t size() const { return count_; }

  void upload(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), count_);
    check_cuda(cudaMemcpy(data(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  /// Waits for the device.
  std::vector<T> download() const {
    check_cuda(cudaDeviceSynchronize());
    std::vector<T> values(count_);
    check_cuda(cudaMemcpy(values.data(), data(), count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  /// Whether all bytes outside of the elements are as they were. Waits for the device.
  bool guards_intact() const {
    check_cuda(cudaDeviceSynchronize());
    std::vector<std::uint8_t> all(bytes());
    check_cuda(cudaMemcpy(all.data(), memory_, bytes(), cudaMemcpyDeviceToHost));
    const auto is_poison = [](std::uint8_t byte) { return byte == 0xff; };
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin_);
    const auto last = first + static_cast<std::ptrdiff_t>(count_ * sizeof(T));
    return std::all_of(all.begin(), first, is_poison) && std::all_of(last, all.end(), is_poison);
  }

 private:
  void fill(std::size_t first, std::size_t count) {
    if (count > 0) check_cuda(cudaMemset(static_cast<std::byte*>(memory_) + first, 0xff, count));
  }
  std::size_t bytes() const { return begin_ + count_ * sizeof(T) + kGuard; }

  std::size_t count_;
  std::size_t begin_;  // in bytes
  void* memory_ = nullptr;
};

}  // namespace ablate::kernels::test

#endif  // ABLATE_HAS_CUDA
