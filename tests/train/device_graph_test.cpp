#include <gtest/gtest.h>

#include "tests/support/gpu.h"

#if ABLATE_HAS_CUDA

#include <memory>
#include <thread>
#include <vector>

#include "runner/train/device_graph.h"

namespace ablate {
namespace {

// Runs that share a process end at the same time, each with its graphs.
TEST(DeviceGraphGpu, GraphsAreDestroyedByManyThreadsAtOnce) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  constexpr std::size_t kThreads = 8, kGraphs = 40;
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  at::Tensor x = at::ones({16}, at::device(at::kCUDA));
  std::vector<std::vector<std::unique_ptr<DeviceGraph>>> graphs(kThreads);
  for (auto& list : graphs) {
    for (std::size_t i = 0; i < kGraphs; ++i) {
      list.push_back(std::make_unique<DeviceGraph>());
      ASSERT_TRUE(list.back()->capture([&] { x.add_(1); }, "the test"));
    }
  }
  graphs[0][0]->replay();
  EXPECT_EQ(x.sum().item<double>(), 32.0);
  c10::cuda::device_synchronize();
  {
    std::vector<std::jthread> threads;
    for (auto& list : graphs) threads.emplace_back([&list] { list.clear(); });
  }
  DeviceGraph another;
  ASSERT_TRUE(another.capture([&] { x.add_(1); }, "the test"));
  another.replay();
  EXPECT_EQ(x.sum().item<double>(), 48.0);
}

}  // namespace
}  // namespace ablate

#endif  // ABLATE_HAS_CUDA
