// Device time of the kernels: one JSON line a case, the median of windows of a captured graph.
// Usage: kernels_bench [TEXT]   (only cases whose line contains TEXT)

#include <cstdio>
#include <exception>
#include <string_view>

#include <cuda_runtime.h>

#include "bench/kernels_bench.h"
#include "methods/kernels/device.cuh"

namespace ablate::kernels::bench {
namespace {

constexpr int kLaunches = 20;  // of one graph
constexpr int kWindows = 9;    // the median of so many is reported
constexpr double kWindowMs = 30.0;

template <typename T>
__global__ void fill_kernel(T* to, std::int64_t count) {
  const std::int64_t i = blockIdx.x * std::int64_t{256} + threadIdx.x;
  if (i >= count) return;
  unsigned x = static_cast<unsigned>(i) * 2654435761U + 12345U;
  x = (x ^ (x >> 16)) * 0x85ebca6bU;
  x = (x ^ (x >> 13)) * 0xc2b2ae35U;
  const float value[1] = {static_cast<float>(x >> 8) * 0x1p-23F - 1.0F};
  store(to + i, value);
}

struct Measured {
  double median_ms = 0.0;
  double fastest_ms = 0.0;
};

class Timer {
 public:
  Timer() {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    check_cuda(cudaEventCreate(&start_));
    check_cuda(cudaEventCreate(&stop_));
  }
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
    cudaStreamDestroy(stream_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  Measured measure(const Work& work) {
    work.run(stream_);  // loads the kernels
    check_cuda(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < kLaunches; ++i) work.run(stream_);
    check_cuda(cudaStreamEndCapture(stream_, &graph));
    check_cuda(cudaGraphInstantiate(&replay, graph, 0));
    window(replay, 1);
    const double once = std::max(1e-3, window(replay, 1));
    const int replays = std::max(1, static_cast<int>(kWindowMs / once));
    std::vector<double> windows;
    for (int i = 0; i < kWindows; ++i)
      windows.push_back(window(replay, replays) / replays / kLaunches);
    check_cuda(cudaGraphExecDestroy(replay));
    check_cuda(cudaGraphDestroy(graph));
    std::ranges::sort(windows);
    return {windows[windows.size() / 2], windows.front()};
  }

 private:
  double window(cudaGraphExec_t replay, int replays) {
    check_cuda(cudaEventRecord(start_, stream_));
    for (int i = 0; i < replays; ++i) check_cuda(cudaGraphLaunch(replay, stream_));
    check_cuda(cudaEventRecord(stop_, stream_));
    check_cuda(cudaEventSynchronize(stop_));
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, start_, stop_));
    return ms;
  }

  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
};

void run_cases(const std::vector<Case>& cases, std::string_view wanted) {
  cudaDeviceProp device{};
  check_cuda(cudaGetDeviceProperties(&device, 0));
  Timer timer;
  for (const Case& one : cases) {
    if (one.name.find(wanted) == std::string::npos) continue;
    const Work work = one.make();
    check_cuda(cudaDeviceSynchronize());
    const Measured measured = timer.measure(work);
    const double seconds = measured.median_ms * 1e-3;
    std::printf(
        "{%s, \"ms\": %.5f, \"fastest_ms\": %.5f, \"gb_per_s\": %.0f, \"tflops\": %.1f, "
        "\"device\": \"%s\"}\n",
        one.name.c_str(), measured.median_ms, measured.fastest_ms, work.bytes / seconds * 1e-9,
        work.flops / seconds * 1e-12, device.name);
    std::fflush(stdout);
  }
}

}  // namespace

template <typename T>
std::shared_ptr<T> random_values(std::int64_t count) {
  auto values = allocate<T>(count);
  const auto blocks =
      static_cast<unsigned>(ceil_div<std::int64_t>(std::max<std::int64_t>(1, count), 256));
  fill_kernel<<<blocks, 256>>>(values.get(), count);
  check_launch();
  return values;
}
template std::shared_ptr<float> random_values(std::int64_t);
template std::shared_ptr<bfloat16> random_values(std::int64_t);

}  // namespace ablate::kernels::bench

int main(int argc, char** argv) {
  using namespace ablate::kernels::bench;  // NOLINT
  try {
    const std::string_view wanted = argc > 1 ? argv[1] : "";
    for (const auto& cases : {attention_cases(), token_cases(), augment_cases(), norm_cases()})
      run_cases(cases, wanted);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernels_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
