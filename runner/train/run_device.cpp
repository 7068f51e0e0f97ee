#include "runner/train/run_device.h"

#include <chrono>

#include "distributed/launcher.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

int cuda_devices() {
  if constexpr (!ABLATE_HAS_CUDA) return 0;
  return at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
}

/// Whether the run goes to a CUDA device; equal on all ranks.
bool wants_cuda(const Environment& environment, const TrainingOptions& options,
                Communicator& world) {
  const bool doubles = options.precision == "fp64";
  if (environment.device == "cpu" && options.wire != "fp32") {
    throw SpecError("wire = \"bf16\" is for CUDA devices; leave it out on the CPU");
  }
  if (environment.device == "cpu" || doubles) {
    if (options.fused()) {
      throw SpecError(
          "precision = \"bf16\" needs a CUDA device; give --device cuda where there is one, or "
          "train with precision = \"fp32\"");
    }
    if (environment.device == "cuda") {
      throw SpecError("precision = \"fp64\" is computed on the CPU; give --device cpu or auto");
    }
    return false;
  }
  const std::int64_t fewest = world.all_reduce(std::int64_t{cuda_devices()}, ReduceOp::Min);
  if (fewest > 0) return true;
  if (environment.device == "auto" && !options.fused()) return false;
  throw Error(ABLATE_HAS_CUDA ? "no CUDA device is visible to every rank of this run"
                              : "this build has no CUDA; configure it with nvcc in PATH");
}

int device_index(Communicator& world) {
  const int local = local_rank(world), count = cuda_devices();
  const auto too_many = world.all_reduce(std::int64_t{local >= count ? 1 : 0}, ReduceOp::Max);
  if (too_many > 0) {
    throw Error(cat("more ranks than CUDA devices on a machine (", count,
                    " are visible here); start one rank a device"));
  }
  return local;
}

}  // namespace

#if ABLATE_HAS_CUDA

struct RunDevice::Cuda {
  explicit Cuda(c10::DeviceIndex index)
      : device(index), stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)) {}

  c10::cuda::CUDAGuard device;
  c10::cuda::CUDAStreamGuard stream;
  std::unique_ptr<Communicator> ranks;
};

RunDevice::RunDevice(const Environment& environment, const TrainingOptions& options,
                     Communicator& world)
    : ranks_(&world) {
  if (!wants_cuda(environment, options, world)) return;
  const int index = device_index(world);
  device_ = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
  cuda_ = std::make_unique<Cuda>(device_.index());
  if (world.size() == 1) return;
  const std::chrono::duration<double> timeout(environment.nccl_timeout);
  cuda_->ranks = make_nccl_communicator(
      world, index,
      {.nvls = environment.nccl_nvls,
       .step_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(timeout)});
  ranks_ = cuda_->ranks.get();
}

std::optional<double> RunDevice::peak_mebibytes() const {
  if (!is_cuda()) return std::nullopt;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device_.index());
  return static_cast<double>(stats.reserved_bytes[0].peak) / (1 << 20);
}

#else

struct RunDevice::Cuda {};

std::optional<double> RunDevice::peak_mebibytes() const { return std::nullopt; }

RunDevice::RunDevice(const Environment& environment, const TrainingOptions& options,
                     Communicator& world)
    : ranks_(&world) {
  wants_cuda(environment, options, world);
}

#endif

RunDevice::~RunDevice() = default;

}  // namespace ablate
