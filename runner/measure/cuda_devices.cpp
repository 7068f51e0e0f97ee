#include "runner/measure/cuda_devices.h"

#include <charconv>
#include <iomanip>
#include <sstream>

#include "distributed/nccl_version.h"
#include "runner/core/error.h"
#include "runner/measure/nvml.h"
#include "runner/torch/torch.h"

namespace ablate {

#if ABLATE_HAS_CUDA

namespace {

std::string uuid_text(const cudaUUID_t& uuid) {
  std::ostringstream text;
  text << "GPU-" << std::hex << std::setfill('0');
  for (std::size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text << '-';
    text << std::setw(2) << static_cast<int>(static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text.str();
}

/// 13000 -> "13.0".
std::string cuda_version(int number) {
  return number == 0 ? "" : cat(number / 1000, ".", number % 1000 / 10);
}

/// 91900 -> "9.19.0".
std::string cudnn_version(long number) {
  return cat(number / 10'000, ".", number % 10'000 / 100, ".", number % 100);
}

}  // namespace

CudaDevices find_cuda_devices() {
  CudaDevices found;
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    cudaGetLastError();  // no device is no error
    found.why_none = cudaGetErrorString(status);
    return found;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    found.devices.push_back({.index = index,
                             .name = properties.name,
                             .uuid = uuid_text(properties.uuid),
                             .compute_capability = cat(properties.major, ".", properties.minor),
                             .multiprocessors = properties.multiProcessorCount,
                             .total_bytes = static_cast<std::int64_t>(properties.totalGlobalMem)});
  }
  if (found.devices.empty()) found.why_none = "the driver shows no device";
  return found;
}

std::int64_t free_device_bytes(int index) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(index));
  std::size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free);
}

CudaLibraries cuda_libraries() {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return {.driver = nvidia_driver_version(),
          .cuda_driver = cuda_version(driver),
          .cuda_runtime = cuda_version(runtime),
          .cudnn = cudnn_version(at::detail::getCUDAHooks().versionRuntimeCuDNN()),
          .nccl = nccl_library_version()};
}

#else

CudaDevices find_cuda_devices() {
  return {.devices = {}, .why_none = "this program was built without CUDA"};
}

std::int64_t free_device_bytes(int index) {
  throw SpecError(cat("device cuda:", index, ": this program was built without CUDA"));
}

CudaLibraries cuda_libraries() { return {.driver = nvidia_driver_version()}; }

#endif

CudaDevice find_cuda_device(const std::string& name) {
  constexpr std::string_view kPrefix = "cuda:";
  const CudaDevices found = find_cuda_devices();
  std::size_t index = 0;
  bool known = name == "cuda";
  if (name.starts_with(kPrefix)) {
    const char* const end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, index);
    known = parsed.ec == std::errc() && parsed.ptr == end;
  }
  if (!known) throw SpecError(cat("device \"", name, "\": accepted are cuda and cuda:N"));
  if (index >= found.devices.size()) {
    throw SpecError(cat("device ", name, ": there are ", found.devices.size(), " CUDA devices",
                        found.why_none.empty() ? "" : cat(" (", found.why_none, ")")));
  }
  return found.devices[index];
}

}  // namespace ablate
