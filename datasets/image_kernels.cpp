#include "datasets/image_kernels.h"

#include <algorithm>
#include <cstring>

namespace ablate {

namespace baseline {
namespace {
#include "datasets/image_kernels.inc"
}  // namespace
}  // namespace baseline

// AVX2 without FMA: a contracted multiply-add would change results from machine to machine.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
namespace {
#include "datasets/image_kernels.inc"
}  // namespace
}  // namespace avx2
#pragma GCC pop_options

const ImageKernels& image_kernels() {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  return has_avx2 ? avx2::kKernels : baseline::kKernels;
}
#else
const ImageKernels& image_kernels() { return baseline::kKernels; }
#endif

const ImageKernels& baseline_kernels() { return baseline::kKernels; }

}  // namespace ablate
