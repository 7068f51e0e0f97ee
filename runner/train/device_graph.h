#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "runner/torch/torch.h"

namespace ablate {

/// The stream that is current on the device; one from the pool when that is the default stream,
/// which cannot be captured.
c10::cuda::CUDAStream stream_for_capture(c10::DeviceIndex device);

/// Waits for a stream in a destructor, where a fault of the device must not be thrown: the next
/// call that may throw meets it again. Returns whether the device still answers.
bool wait_quietly(const c10::cuda::CUDAStream& stream);

/// Work on a stream, captured into a CUDA graph once and replayed.
class DeviceGraph {
 public:
  DeviceGraph() = default;
  ~DeviceGraph() { reset(); }
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  /// Captures what `work` enqueues on the current stream. False when it cannot be captured, because
  /// something in it waits for the device; says so in one line, naming it `what`. The caller is
  /// alone on the device (RunGate). Throws what is a bug of ours.
  bool capture(const std::function<void()>& work, std::string_view what);
  bool captured() const { return graph_ != nullptr; }
  void replay() { graph_->replay(); }
  /// The device must be done with it. Before communicators that it uses are destroyed.
  void reset();

 private:
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace ablate
