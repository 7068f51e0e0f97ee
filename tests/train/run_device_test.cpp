#include "runner/train/run_device.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/gpu.h"
#include "tests/train/run_tables.h"

// What a run asks for and what the machine has are held against each other before anything else.

namespace ablate::test {
namespace {

bool has_cuda_device() { return ABLATE_HAS_CUDA && has_gpu(); }

at::Device device_of(const std::string& device, const std::vector<std::string>& overrides) {
  Environment environment;
  environment.device = device;
  const auto self = make_self_communicator();
  const TrainingOptions options = options_of(resolve_table(kTinyVit, overrides));
  return RunDevice(environment, options, *self).device();
}

std::string refusal_of(const std::string& device, const std::vector<std::string>& overrides) {
  return message_of<SpecError>([&] { device_of(device, overrides); });
}

TEST(RunDevice, TheCpuTakesWhatItCanCompute) {
  EXPECT_TRUE(device_of("cpu", {}).is_cpu());
  EXPECT_TRUE(device_of("cpu", {"precision=fp64"}).is_cpu());
  EXPECT_TRUE(device_of("auto", {"precision=fp64"}).is_cpu());
  const std::string half = refusal_of("cpu", {"precision=bf16"});
  EXPECT_NE(half.find("precision = \"bf16\" needs a CUDA device"), std::string::npos) << half;
  const std::string wire = refusal_of("cpu", {"wire=bf16"});
  EXPECT_NE(wire.find("wire = \"bf16\""), std::string::npos) << wire;
}

TEST(RunDevice, ACudaDeviceTakesNoDoubles) {
  const std::string doubles = refusal_of("cuda", {"precision=fp64"});
  EXPECT_NE(doubles.find("--device cpu or auto"), std::string::npos) << doubles;
}

TEST(RunDevice, AutoFollowsTheMachine) {
  EXPECT_EQ(device_of("auto", {}).is_cuda(), has_cuda_device());
  if (has_cuda_device()) return;
  const std::string missing = message_of<Error>([] { device_of("cuda", {}); });
  EXPECT_NE(missing.find("CUDA"), std::string::npos) << missing;
  EXPECT_THROW(device_of("auto", {"precision=bf16"}), Error);
}

}  // namespace
}  // namespace ablate::test
