#include "methods/kernels/optimizer.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using test::normal_values;
using Floats = std::vector<float>;

constexpr std::size_t kUpdateSize = 40000;

/// Chunks of all kinds, with gaps that belong to nobody.
std::vector<UpdateChunk> update_chunks() {
  return {{.begin = 0, .count = 16384, .weight_decay = 0.05},
          {.begin = 16384, .count = 3, .lr_factor = 0.5},
          {.begin = 16448, .count = 1001, .weight_decay = 0.1},
          {.begin = 17472, .count = 64, .clamp_low = 0.0, .clamp_high = 1.0},
          {.begin = 17536, .count = 1, .lr_factor = 10.0},
          {.begin = 20000, .count = 16385, .lr_factor = 0.25, .weight_decay = 0.05}};
}

/// The flat buffers of one parameter set and what goes with them.
struct UpdateValues {
  std::vector<UpdateChunk> chunks = update_chunks();
  std::vector<UpdateScalars> scalars{{.lr = 1e-2, .max_norm = 1.0, .ema_decay = 0.99}};
  std::vector<UpdateStatus> status{UpdateStatus{.updates = 6}};
  std::vector<double> loss{2.5};
  Floats gradients = normal_values<float>(kUpdateSize, 1, 0.1);
  Floats parameters = normal_values<float>(kUpdateSize, 2);
  Floats ema = normal_values<float>(kUpdateSize, 3);
  Floats first = normal_values<float>(kUpdateSize, 4, 0.01);  // exp_avg or velocity
  Floats second = normal_values<float>(kUpdateSize, 5, 1e-3);
  std::vector<bfloat16> working = test::poison<bfloat16>(kUpdateSize);

  UpdateValues() {
    for (float& value : second) value = std::abs(value);
  }
  FlatUpdate flat() {
    return {.chunks = chunks.data(),
            .chunk_count = static_cast<std::int64_t>(chunks.size()),
            .scalars = scalars.data(),
            .status = status.data(),
            .loss = loss.data(),
            .gradients = gradients.data(),
            .parameters = parameters.data(),
            .ema = ema.data(),
            .working = working.data()};
  }
};

enum class UpdateRule { AdamW, Momentum, Nesterov, Plain };

const std::vector<UpdateRule> kUpdateRules{UpdateRule::AdamW, UpdateRule::Momentum,
                                           UpdateRule::Nesterov, UpdateRule::Plain};

SgdRule sgd_rule(UpdateRule rule) {
  return {.momentum = rule == UpdateRule::Plain ? 0.0 : 0.9,
          .nesterov = rule == UpdateRule::Nesterov};
}

void update_on_host(UpdateValues& values, UpdateRule rule) {
  const FlatUpdate flat = values.flat();
  reference::begin_update(flat, {});
  if (rule == UpdateRule::AdamW) {
    reference::adamw_update(flat, {}, values.first.data(), values.second.data());
  } else {
    reference::sgd_update(flat, sgd_rule(rule),
                          rule == UpdateRule::Plain ? nullptr : values.first.data());
  }
}

TEST(KernelOptimizer, AdamWFollowsThePaper) {
  // One element, in double precision.
  UpdateValues values;
  values.chunks = {{.begin = 4, .count = 1, .lr_factor = 2.0, .weight_decay = 0.1}};
  values.scalars[0] = {.lr = 0.01, .gradient_scale = 0.5};
  values.status[0].updates = 2;
  const double g = 0.5 * values.gradients[4], p = values.parameters[4];
  const double m = 0.9 * values.first[4] + 0.1 * g;
  const double v = 0.999 * values.second[4] + 0.001 * g * g;
  const double m_hat = m / (1 - std::pow(0.9, 3)), v_hat = v / (1 - std::pow(0.999, 3));
  const double expected = p - 0.02 * 0.1 * p - 0.02 * m_hat / (std::sqrt(v_hat) + 1e-8);
  const auto before = values.parameters;
  update_on_host(values, UpdateRule::AdamW);
  EXPECT_NEAR(values.parameters[4], expected, 1e-6);
  EXPECT_EQ(values.parameters[3], before[3]);
  EXPECT_EQ(values.parameters[5], before[5]);
  EXPECT_EQ(to_float(values.working[4]), to_float(from_float<bfloat16>(values.parameters[4])));
}

TEST(KernelOptimizer, SgdFollowsTorchsForm) {
  for (const UpdateRule rule : {UpdateRule::Plain, UpdateRule::Momentum, UpdateRule::Nesterov}) {
    UpdateValues values;
    values.chunks = {{.begin = 4, .count = 1, .weight_decay = 0.1}};
    values.scalars[0] = {.lr = 0.01, .ema_decay = 0.75};
    const double p = values.parameters[4], g = values.gradients[4] + 0.1 * p;
    const double velocity = rule == UpdateRule::Plain ? g : 0.9 * values.first[4] + g;
    const double direction = rule == UpdateRule::Nesterov ? g + 0.9 * velocity : velocity;
    const double ema = 0.75 * values.ema[4] + 0.25 * (p - 0.01 * direction);
    update_on_host(values, rule);
    EXPECT_NEAR(values.parameters[4], p - 0.01 * direction, 1e-6);
    EXPECT_NEAR(values.ema[4], ema, 1e-6);
  }
}

TEST(KernelOptimizer, ClipsToTheNormAndToBounds) {
  UpdateValues values;
  values.chunks = {{.begin = 0, .count = 2, .clamp_low = 0.0, .clamp_high = 0.5}};
  values.scalars[0] = {.lr = 1.0, .gradient_scale = 2.0, .max_norm = 1.0};
  values.gradients[0] = 3.0F;
  values.gradients[1] = -4.0F;
  values.parameters[0] = values.parameters[1] = 0.25F;
  update_on_host(values, UpdateRule::Plain);
  EXPECT_DOUBLE_EQ(values.status[0].norm, 10.0);
  EXPECT_DOUBLE_EQ(values.status[0].clip_factor, 1.0 / (10.0 + 1e-6));
  EXPECT_EQ(values.parameters[0], 0.0F);
  EXPECT_EQ(values.parameters[1], 0.5F);
}

TEST(KernelOptimizer, GradientsThatAreNotFiniteChangeNothing) {
  for (const float poison :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    UpdateValues values, before;
    values.gradients[20001] = poison;
    update_on_host(values, UpdateRule::AdamW);
    EXPECT_EQ(values.status[0].finite, 0);
    EXPECT_EQ(values.status[0].updates, before.status[0].updates);
    EXPECT_EQ(values.parameters, before.parameters);
  }
}

TEST(KernelOptimizer, ALossThatIsNotFiniteChangesNothing) {
  UpdateValues values, before;
  values.loss[0] = std::numeric_limits<double>::quiet_NaN();
  update_on_host(values, UpdateRule::AdamW);
  EXPECT_EQ(values.status[0].finite, 0);
  EXPECT_EQ(values.parameters, before.parameters);
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using KernelOptimizerGpu = test::GpuTest;

/// The same on the device; `values` receives the results.
void update_on_device(UpdateValues& values, UpdateRule rule) {
  const DeviceBuffer<UpdateChunk> chunks(values.chunks);
  const DeviceBuffer<UpdateScalars> scalars(values.scalars);
  DeviceBuffer<UpdateStatus> status(values.status);
  const DeviceBuffer<double> loss(values.loss);
  const DeviceBuffer<float> gradients(values.gradients, 4);
  DeviceBuffer<float> parameters(values.parameters, 4), ema(values.ema, 4), first(values.first, 4),
      second(values.second, 4);
  DeviceBuffer<bfloat16> working(values.working, 4);
  const auto count = static_cast<std::int64_t>(values.chunks.size());
  DeviceBuffer<std::byte> workspace(begin_update_workspace_bytes(count));
  const FlatUpdate flat{.chunks = chunks.data(),
                        .chunk_count = count,
                        .scalars = scalars.data(),
                        .status = status.data(),
                        .loss = loss.data(),
                        .gradients = gradients.data(),
                        .parameters = parameters.data(),
                        .ema = ema.data(),
                        .working = working.data()};
  begin_update(flat, {}, workspace.data(), nullptr);
  if (rule == UpdateRule::AdamW) {
    adamw_update(flat, {}, first.data(), second.data(), nullptr);
  } else {
    sgd_update(flat, sgd_rule(rule), rule == UpdateRule::Plain ? nullptr : first.data(), nullptr);
  }
  EXPECT_TRUE(status.guards_intact() && parameters.guards_intact() && ema.guards_intact() &&
              first.guards_intact() && second.guards_intact() && working.guards_intact() &&
              workspace.guards_intact());
  values.status = status.download();
  values.parameters = parameters.download();
  values.ema = ema.download();
  values.first = first.download();
  values.second = second.download();
  values.working = working.download();
}

void expect_same_values(const UpdateValues& got, const UpdateValues& want) {
  EXPECT_TRUE(test::same_bits(got.parameters, want.parameters));
  EXPECT_TRUE(test::same_bits(got.ema, want.ema));
  EXPECT_TRUE(test::same_bits(got.first, want.first));
  EXPECT_TRUE(test::same_bits(got.second, want.second));
  EXPECT_TRUE(test::same_bits(got.working, want.working));
}

// Operations and roundings are the same, so the bits are; they would differ by a last bit if the
// clip factor or a correction, in double, fell on two sides of a rounding to single.
TEST_F(KernelOptimizerGpu, EqualsTheReferenceBitForBit) {
  for (const UpdateRule rule : kUpdateRules) {
    for (const std::int64_t done : {0, 6, 99999}) {
      SCOPED_TRACE(::testing::Message()
                   << "rule " << static_cast<int>(rule) << ", update " << done + 1);
      UpdateValues host, device;
      host.status[0].updates = device.status[0].updates = done;
      update_on_host(host, rule);
      update_on_device(device, rule);
      EXPECT_NEAR(device.status[0].norm, host.status[0].norm, 1e-12 * host.status[0].norm);
      EXPECT_LT(host.status[0].clip_factor, 1.0);
      EXPECT_EQ(device.status[0].finite, 1);
      EXPECT_EQ(device.status[0].updates, done + 1);
      expect_same_values(device, host);
    }
  }
}

TEST_F(KernelOptimizerGpu, AverageIsLeftOutWithoutDecay) {
  UpdateValues host, device;
  host.scalars[0].ema_decay = device.scalars[0].ema_decay = 0.0;
  host.scalars[0].max_norm = device.scalars[0].max_norm = 0.0;
  update_on_host(host, UpdateRule::AdamW);
  update_on_device(device, UpdateRule::AdamW);
  EXPECT_EQ(device.status[0].clip_factor, 1.0);
  expect_same_values(device, host);
}

TEST_F(KernelOptimizerGpu, GradientsThatAreNotFiniteChangeNothing) {
  for (const float poison :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const UpdateRule rule : kUpdateRules) {
      UpdateValues values, before;
      values.gradients[20001] = poison;
      update_on_device(values, rule);
      update_on_device(values, rule);
      EXPECT_EQ(values.status[0].finite, 0);
      EXPECT_EQ(values.status[0].updates, before.status[0].updates);
      expect_same_values(values, before);
    }
  }
}

TEST_F(KernelOptimizerGpu, ALossThatIsNotFiniteChangesNothing) {
  UpdateValues values, before;
  values.loss[0] = std::numeric_limits<double>::infinity();
  update_on_device(values, UpdateRule::AdamW);
  EXPECT_EQ(values.status[0].finite, 0);
  expect_same_values(values, before);
}

TEST_F(KernelOptimizerGpu, GradientsOutsideOfChunksDoNotCount) {
  UpdateValues values;
  values.gradients[39999] = std::numeric_limits<float>::quiet_NaN();
  values.gradients[16390] = std::numeric_limits<float>::quiet_NaN();
  update_on_device(values, UpdateRule::AdamW);
  EXPECT_EQ(values.status[0].finite, 1);
}

TEST_F(KernelOptimizerGpu, VelocityAndMomentumGoTogether) {
  UpdateValues values;
  EXPECT_THROW(sgd_update(values.flat(), {.momentum = 0.9}, nullptr, nullptr), BugError);
}

#endif

}  // namespace
}  // namespace ablate::kernels
