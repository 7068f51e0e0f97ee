#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ablate {

struct CudaDevice {
  int index = 0;  ///< as CUDA counts, behind CUDA_VISIBLE_DEVICES
  std::string name;
  std::string uuid;  ///< "GPU-..."
  std::string compute_capability;
  int multiprocessors = 0;
  std::int64_t total_bytes = 0;
};

struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string why_none;  ///< when there are none
};

/// The devices this process can use. Creates no context on them, so that none loses memory to it.
CudaDevices find_cuda_devices();

/// Bytes of a device that nobody has taken. Creates a context there.
std::int64_t free_device_bytes(int index);

/// The device that a name such as "cuda" or "cuda:1" means. Throws SpecError when it is not there.
CudaDevice find_cuda_device(const std::string& name);

/// Versions of the libraries this program runs with; empty without them.
struct CudaLibraries {
  std::string driver;        ///< "580.159.04"
  std::string cuda_driver;   ///< the newest CUDA that the driver serves, "13.0"
  std::string cuda_runtime;  ///< "13.0"
  std::string cudnn, nccl;
};
CudaLibraries cuda_libraries();

}  // namespace ablate
