#include <cuda_runtime.h>

#include "methods/kernels/cuda_check.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

bool is_refused_argument(cudaError_t error) {
  return error == cudaErrorInvalidValue || error == cudaErrorInvalidConfiguration ||
         error == cudaErrorInvalidDeviceFunction || error == cudaErrorNoKernelImageForDevice ||
         error == cudaErrorInvalidResourceHandle || error == cudaErrorStreamCaptureUnsupported;
}

}  // namespace

void check_cuda(int status, std::source_location where) {
  const auto error = static_cast<cudaError_t>(status);
  if (error == cudaSuccess) return;
  const std::string message = cat(where.file_name(), ":", where.line(), ": ",
                                  cudaGetErrorName(error), ": ", cudaGetErrorString(error));
  if (is_refused_argument(error)) throw BugError(message);
  throw TransientError(message);
}

void check_launch(std::source_location where) { check_cuda(cudaGetLastError(), where); }

int multiprocessor_count() {
  int device = 0;
  int count = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

}  // namespace ablate::kernels
