#pragma once

#include <memory>
#include <optional>

#include "distributed/communicator.h"
#include "runner/torch/torch.h"
#include "runner/train/environment.h"
#include "runner/train/training_options.h"

namespace ablate {

/// Where one rank computes a run. On a CUDA device it owns the stream of the run, which is current
/// in this thread while it lives, and the communicator between devices.
class RunDevice {
 public:
  /// environment.device is "cpu", "cuda" or "auto" (a CUDA device when there is one that the run
  /// can use). Ranks of one machine take its devices in order. Collective. Throws SpecError when
  /// the run's precision and the device do not fit, Error when a machine has too few devices.
  RunDevice(const Environment& environment, const TrainingOptions& options, Communicator& world);
  ~RunDevice();
  RunDevice(const RunDevice&) = delete;
  RunDevice& operator=(const RunDevice&) = delete;

  at::Device device() const { return device_; }
  bool is_cuda() const { return device_.is_cuda(); }
  /// The most memory that this process, with all of its runs, has taken of the device; nothing on
  /// the CPU.
  std::optional<double> peak_mebibytes() const;
  /// Collectives on tensors of the device.
  Communicator& ranks() { return *ranks_; }

 private:
  struct Cuda;

  at::Device device_ = at::kCPU;
  Communicator* ranks_;
  std::unique_ptr<Cuda> cuda_;
};

}  // namespace ablate
