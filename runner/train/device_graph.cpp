#include "runner/train/device_graph.h"

#include <mutex>

#include "runner/core/error.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

/// LibTorch notes every graph with the device's random generator, in a set that it does not guard
/// against other threads.
std::mutex& registration() {
  static std::mutex mutex;
  return mutex;
}

/// Ends a capture that an exception left open, so that the stream can be used again.
void abandon(at::cuda::CUDAGraph& graph) {
  try {
    graph.capture_end();
  } catch (const std::exception&) {  // says that the capture failed, which is known
  }
  static_cast<void>(cudaGetLastError());
}

}  // namespace

c10::cuda::CUDAStream stream_for_capture(c10::DeviceIndex device) {
  const auto current = c10::cuda::getCurrentCUDAStream(device);
  return current == c10::cuda::getDefaultCUDAStream(device)
             ? c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device)
             : current;
}

bool wait_quietly(const c10::cuda::CUDAStream& stream) {
  return cudaStreamSynchronize(stream.stream()) == cudaSuccess;
}

bool DeviceGraph::capture(const std::function<void()>& work, std::string_view what) {
  const std::lock_guard registering(registration());
  c10::cuda::device_synchronize();
  // What eager work left in the cache would lie unused beside the graph's own pool.
  c10::cuda::CUDACachingAllocator::emptyCache();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  try {
    graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    work();
    graph->capture_end();
    std::swap(graph_, graph);
    return true;
  } catch (const BugError&) {
    abandon(*graph);
    throw;
  } catch (const std::exception& error) {
    abandon(*graph);
    const std::string reason = error.what();
    log_warning(cat(what, " runs without a CUDA graph, because it cannot be captured: ",
                    reason.substr(0, reason.find('\n'))));
    return false;
  }
}

void DeviceGraph::reset() {
  if (!graph_) return;
  const std::lock_guard registering(registration());
  graph_.reset();
}

}  // namespace ablate
