#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "methods/kernels/bfloat16.h"
#include "methods/kernels/cuda_check.h"

namespace ablate::kernels::bench {

/// What a case does, and what it has to move and to compute at the least.
struct Work {
  std::function<void(Stream)> run;
  double bytes = 0.0;
  double flops = 0.0;
};

struct Case {
  std::string name;  ///< the first members of the JSON line
  std::function<Work()> make;
};

/// Device memory that one case shares with the function that runs it.
template <typename T>
std::shared_ptr<T> allocate(std::int64_t count) {
  void* memory = nullptr;
  check_cuda(
      cudaMalloc(&memory, std::max<std::size_t>(16, static_cast<std::size_t>(count) * sizeof(T))));
  return {static_cast<T*>(memory), [](T* pointer) { cudaFree(pointer); }};
}

/// Values in (-1, 1) that look random; the same in every run.
template <typename T>
std::shared_ptr<T> random_values(std::int64_t count);

std::vector<Case> attention_cases();
std::vector<Case> norm_cases();
std::vector<Case> token_cases();
std::vector<Case> augment_cases();

}  // namespace ablate::kernels::bench
