#include "runner/measure/device_peak.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/cuda_devices.h"
#include "tests/core/expect_error.h"

namespace ablate {
namespace {

TEST(DevicePeak, IsThatOfTheDataSheet) {
  EXPECT_DOUBLE_EQ(*device_peak_flops("NVIDIA H200", "bf16"), 989.5e12);
  EXPECT_DOUBLE_EQ(*device_peak_flops("NVIDIA H200 NVL", "bf16"), 835.5e12);
  EXPECT_DOUBLE_EQ(*device_peak_flops("NVIDIA H100 80GB HBM3", "bf16"), 989.5e12);
  EXPECT_DOUBLE_EQ(*device_peak_flops("NVIDIA A100-SXM4-80GB", "bf16"), 312e12);
  EXPECT_DOUBLE_EQ(*device_peak_flops("NVIDIA A100-SXM4-40GB", "fp32"), 19.5e12);
}

TEST(DevicePeak, OfWhatIsNotKnownIsNotGuessed) {
  EXPECT_FALSE(device_peak_flops("NVIDIA X9000", "bf16"));
  EXPECT_FALSE(device_peak_flops("NVIDIA L40", "bf16")) << "not an L4";
  EXPECT_FALSE(device_peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16")) << "a part of one";
  EXPECT_FALSE(device_peak_flops("NVIDIA H200", "fp64"));
}

// DeiT-S at 224 pixels: 4.6 GMACs (Touvron et al., 2021); 12,118 images/s of training are 335
// TFLOP/s.
TEST(DevicePeak, UtilisationCountsTwoOperationsAndThreePasses) {
  const auto training =
      model_flops_utilisation(4.6e9, BenchKind::Train, 12'118, "NVIDIA H200", "bf16");
  ASSERT_TRUE(training);
  EXPECT_NEAR(*training, 334.5e12 / 989.5e12, 1e-3);
  const auto inference =
      model_flops_utilisation(4.6e9, BenchKind::Infer, 12'118, "NVIDIA H200", "bf16");
  EXPECT_DOUBLE_EQ(*training, 3 * *inference);
  EXPECT_FALSE(model_flops_utilisation(4.6e9, BenchKind::Train, 12'118, "unknown", "bf16"));
}

TEST(CudaDevices, AreNamedAsTorchNamesThem) {
  const auto refusal = [](const char* name) {
    return test::message_of<SpecError>([name] { find_cuda_device(name); });
  };
  EXPECT_NE(refusal("gpu0").find("accepted are cuda and cuda:N"), std::string::npos);
  EXPECT_NE(refusal("cuda:x").find("accepted are cuda and cuda:N"), std::string::npos);
  EXPECT_NE(refusal("cuda:999").find("device cuda:999: there are "), std::string::npos);
}

TEST(CudaDevices, SayWhyThereAreNone) {
  const CudaDevices found = find_cuda_devices();
  EXPECT_EQ(found.devices.empty(), !found.why_none.empty()) << found.why_none;
}

TEST(CudaDevicesGpu, TellNameMemoryAndUuid) {
  const CudaDevices found = find_cuda_devices();
  if (found.devices.empty()) GTEST_SKIP() << found.why_none;
  const CudaDevice& device = found.devices.front();
  EXPECT_EQ(device.name.rfind("NVIDIA", 0), 0U) << device.name;
  EXPECT_EQ(device.uuid.size(), 40U) << device.uuid;
  const std::int64_t free = free_device_bytes(device.index);
  EXPECT_GT(free, 0);
  EXPECT_LE(free, device.total_bytes);
  EXPECT_FALSE(cuda_libraries().driver.empty());
}

}  // namespace
}  // namespace ablate
