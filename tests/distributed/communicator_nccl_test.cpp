#if ABLATE_HAS_NCCL
#include <gtest/gtest.h>

#include "tests/distributed/communicator_contract.h"
#include "tests/support/run_ranks.h"

namespace ablate::test {
namespace {

class NcclCommunicatorGpu : public ::testing::TestWithParam<int> {};

/// One rank a device; the ranks are threads, which NCCL allows.
TEST_P(NcclCommunicatorGpu, HoldsTheContract) {
  const int size = GetParam();
  if (c10::cuda::device_count() < size) GTEST_SKIP() << "needs " << size << " GPUs";
  run_ranks(size, [](Communicator& host) {
    const auto index = static_cast<c10::DeviceIndex>(host.rank());
    const c10::cuda::CUDAGuard guard(index);
    const auto nccl = make_nccl_communicator(host, host.rank());
    contract::holds(*nccl, at::Device(at::kCUDA, index));
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, NcclCommunicatorGpu, ::testing::Values(1, 2, 4));

}  // namespace
}  // namespace ablate::test
#endif
