#include "methods/kernels/cross_entropy.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using Labels = std::vector<std::int64_t>;

TEST(CrossEntropy, OfEqualScoresIsTheLogarithmOfTheirNumber) {
  const std::vector<float> logits(8, 3.0F);
  const Labels labels{1, 3};
  std::vector<float> losses(2), d_logits(8);
  float mean = 0.0F;
  reference::cross_entropy<float>({.rows = 2,
                                   .classes = 4,
                                   .logits = logits.data(),
                                   .labels = labels.data(),
                                   .label_smoothing = 0.1F,
                                   .losses = losses.data(),
                                   .mean_loss = &mean,
                                   .d_logits = d_logits.data()});
  EXPECT_FLOAT_EQ(losses[0], std::log(4.0F));
  EXPECT_FLOAT_EQ(mean, std::log(4.0F));
  // (1/4 - target) / 2 with targets 0.925 and 0.025.
  EXPECT_NEAR(d_logits[0], 0.1125, 1e-7);
  EXPECT_NEAR(d_logits[1], -0.3375, 1e-7);
}

TEST(CrossEntropy, GradientIsTheDerivativeOfTheMean) {
  constexpr std::int64_t kRows = 3, kClasses = 5;
  auto logits = test::normal_values<float>(15, 1, 2.0);
  const Labels labels{0, 4, 2}, others{3, 4, 1};
  const std::vector<float> mix{0.75F, 0.5F, 0.0F};
  std::vector<float> losses(3), d_logits(15);
  float mean = 0.0F;
  CrossEntropy<float> arguments{.rows = kRows,
                                .classes = kClasses,
                                .logits = logits.data(),
                                .labels = labels.data(),
                                .other_labels = others.data(),
                                .mix = mix.data(),
                                .label_smoothing = 0.2F,
                                .loss_scale = 4.0F,
                                .losses = losses.data(),
                                .mean_loss = &mean,
                                .d_logits = d_logits.data()};
  reference::cross_entropy(arguments);
  const auto gradient = d_logits;
  EXPECT_NEAR(mean, (losses[0] + losses[1] + losses[2]) / 3, 1e-6);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    constexpr float kStep = 0x1p-8F;
    const float kept = logits[i];
    const auto sum_at = [&](float value) {
      logits[i] = value;
      reference::cross_entropy(arguments);
      return double{losses[0]} + losses[1] + losses[2];
    };
    const double slope = (sum_at(kept + kStep) - sum_at(kept - kStep)) / (2 * kStep) / 3;
    logits[i] = kept;
    EXPECT_NEAR(gradient[i], 4.0 * slope, 2e-4);
  }
}

TEST(CrossEntropy, LabelsOutOfRangeGiveNan) {
  const std::vector<float> logits(3, 0.0F);
  const Labels labels{3};
  float loss = 0.0F;
  reference::cross_entropy<float>(
      {.rows = 1, .classes = 3, .logits = logits.data(), .labels = labels.data(), .losses = &loss});
  EXPECT_TRUE(std::isnan(loss));
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using CrossEntropyGpu = test::GpuTest;

struct CrossEntropyCase {
  std::int64_t rows, classes;
  std::int64_t heads = 1;
  bool mixed = true, in_place = false;
  float smoothing = 0.1F, spread = 2.0F;

  std::size_t logits() const { return static_cast<std::size_t>(rows * heads * classes); }
};

std::ostream& operator<<(std::ostream& out, const CrossEntropyCase& c) {
  return out << c.rows << " x " << c.classes << ", heads " << c.heads << ", mixed " << c.mixed
             << ", in place " << c.in_place << ", smoothing " << c.smoothing;
}

Labels random_labels(const CrossEntropyCase& c, std::uint64_t key) {
  RandomStream stream(key, Purpose::Test);
  Labels labels;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    labels.push_back(stream.below(static_cast<std::uint32_t>(c.classes)));
  }
  return labels;
}

template <typename T>
void expect_cross_entropy_equals_reference(const CrossEntropyCase& c) {
  SCOPED_TRACE(::testing::Message() << c << ", T of " << sizeof(T) << " bytes");
  const auto logits = test::normal_values<T>(c.logits(), 1, c.spread);
  const Labels labels = random_labels(c, 2), others = random_labels(c, 3);
  std::vector<float> mix(static_cast<std::size_t>(c.rows));
  RandomStream stream(4, Purpose::Test);
  for (float& share : mix) share = stream.uniform();
  std::vector<float> losses(mix.size()), mean(1);
  std::vector<T> d_logits = c.in_place ? logits : test::poison<T>(c.logits());
  CrossEntropy<T> arguments{.rows = c.rows,
                            .classes = c.classes,
                            .logits = logits.data(),
                            .logits_stride = c.heads * c.classes,
                            .labels = labels.data(),
                            .other_labels = c.mixed ? others.data() : nullptr,
                            .mix = c.mixed ? mix.data() : nullptr,
                            .label_smoothing = c.smoothing,
                            .loss_scale = 2.0F,
                            .losses = losses.data(),
                            .mean_loss = mean.data(),
                            .d_logits = d_logits.data(),
                            .d_logits_stride = c.heads * c.classes};
  reference::cross_entropy(arguments);
  const DeviceBuffer<std::int64_t> device_labels(labels), device_others(others);
  const DeviceBuffer<float> device_mix(mix);
  std::vector<float> first;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<T> device_logits(logits, 1), separate(c.logits(), 1);
    DeviceBuffer<T>& device_d_logits = c.in_place ? device_logits : separate;
    DeviceBuffer<float> device_losses(losses.size(), 1), device_mean(1);
    arguments.logits = device_logits.data();
    arguments.labels = device_labels.data();
    arguments.other_labels = c.mixed ? device_others.data() : nullptr;
    arguments.mix = c.mixed ? device_mix.data() : nullptr;
    arguments.losses = device_losses.data();
    arguments.mean_loss = device_mean.data();
    arguments.d_logits = device_d_logits.data();
    cross_entropy(arguments, nullptr);
    EXPECT_TRUE(all_close(device_losses.download(), losses, 4e-6, 2e-6));
    EXPECT_TRUE(all_close(device_mean.download(), mean, 4e-6, 2e-6));
    EXPECT_TRUE(all_close(device_d_logits.download(), d_logits, 2e-6 / static_cast<double>(c.rows),
                          2.01 * test::rounding_of<T>() + 4e-6));
    EXPECT_TRUE(device_losses.guards_intact() && device_mean.guards_intact() &&
                device_d_logits.guards_intact());
    if (launch == 0) first = device_mean.download();
    EXPECT_TRUE(test::same_bits(device_mean.download(), first));
  }
}

TEST_F(CrossEntropyGpu, EqualsTheReference) {
  for (const CrossEntropyCase& c : std::vector<CrossEntropyCase>{
           {.rows = 1, .classes = 1},
           {.rows = 5, .classes = 2, .mixed = false, .smoothing = 0.0F},
           {.rows = 128, .classes = 10},
           {.rows = 128, .classes = 100},
           {.rows = 3, .classes = 257, .in_place = true},
           {.rows = 256, .classes = 1000},
           {.rows = 256, .classes = 1000, .mixed = false, .in_place = true},
           {.rows = 33, .classes = 100, .heads = 2},
           {.rows = 33, .classes = 1000, .heads = 2, .in_place = true},
           {.rows = 2500, .classes = 31, .spread = 20.0F},
           {.rows = 7, .classes = 21843},
       }) {
    if (test::too_large_here(c.rows * c.classes)) continue;
    expect_cross_entropy_equals_reference<float>(c);
    expect_cross_entropy_equals_reference<bfloat16>(c);
  }
}

TEST_F(CrossEntropyGpu, LabelsOutOfRangeGiveNan) {
  const DeviceBuffer<float> logits(std::vector<float>(6, 1.0F));
  const DeviceBuffer<std::int64_t> labels(Labels{-1, 2});
  DeviceBuffer<float> losses(2), d_logits(6);
  cross_entropy<float>({.rows = 2,
                        .classes = 3,
                        .logits = logits.data(),
                        .labels = labels.data(),
                        .losses = losses.data(),
                        .d_logits = d_logits.data()},
                       nullptr);
  EXPECT_TRUE(std::isnan(losses.download()[0]));
  EXPECT_TRUE(std::isnan(d_logits.download()[0]));
  EXPECT_NEAR(losses.download()[1], std::log(3.0), 1e-6);
}

TEST_F(CrossEntropyGpu, MixWithoutOtherLabelsIsRefused) {
  const float mix = 0.5F;
  float loss = 0.0F;
  CrossEntropy<float> arguments{.rows = 1, .classes = 2, .mix = &mix, .losses = &loss};
  EXPECT_THROW(cross_entropy(arguments, nullptr), BugError);
}

#endif

}  // namespace
}  // namespace ablate::kernels
