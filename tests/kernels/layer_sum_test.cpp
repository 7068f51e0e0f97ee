#include "methods/kernels/layer_sum.h"

#include <cstdint>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// Maps, weights, a base and an upstream gradient of T.
template <typename T>
struct LayerCase {
  std::int64_t batch, pixels, channels, heads, count;
  std::vector<std::vector<T>> maps;
  std::vector<float> weights;
  std::vector<T> base, upstream;

  LayerCase(std::int64_t b, std::int64_t p, std::int64_t c, std::int64_t h, std::int64_t n)
      : batch(b), pixels(p), channels(c), heads(h), count(n) {
    const auto size = static_cast<std::size_t>(b * p * c);
    for (std::int64_t i = 0; i < n; ++i) {
      maps.push_back(test::normal_values<T>(size, 31 + static_cast<std::uint64_t>(i)));
    }
    weights = test::normal_values<float>(static_cast<std::size_t>(n * b * h), 29);
    base = test::normal_values<T>(size, 27);
    upstream = test::normal_values<T>(size, 28);
  }
  std::size_t size() const { return base.size(); }

  LayerMaps<T> layers() const {
    LayerMaps<T> result{
        .batch = batch, .pixels = pixels, .channels = channels, .heads = heads, .count = count};
    for (std::size_t i = 0; i < maps.size(); ++i) result.maps[i] = maps[i].data();
    return result;
  }
  std::vector<T> sum(bool based) const {
    std::vector<T> result(size());
    reference::layer_sum<T>({.layers = layers(),
                             .weights = weights.data(),
                             .base = based ? base.data() : nullptr,
                             .sum = result.data()});
    return result;
  }
  std::vector<float> gradient() const {
    std::vector<float> result(weights.size());
    reference::layer_sum_gradient<T>(
        {.layers = layers(), .upstream = upstream.data(), .gradient = result.data()});
    return result;
  }
};

TEST(LayerSum, WeighsEachHeadOfEachImage) {
  LayerCase<float> c(2, 1, 4, 2, 2);
  c.maps = {{1, 2, 3, 4, 5, 6, 7, 8}, {10, 20, 30, 40, 50, 60, 70, 80}};
  c.weights = {1, 2, 3, 4, 0.5F, 0.25F, 0, 1};
  c.base = {100, 0, 0, 0, 0, 0, 0, 1000};
  EXPECT_EQ(c.sum(false), (std::vector<float>{6, 12, 13.5F, 18, 15, 18, 98, 112}));
  EXPECT_EQ(c.sum(true), (std::vector<float>{106, 12, 13.5F, 18, 15, 18, 98, 1112}));
}

// <upstream, sum(weights)> = <gradient, weights>: the sum is linear in the weights.
TEST(LayerSum, TheGradientIsItsTranspose) {
  const LayerCase<float> c(3, 5, 12, 4, 6);
  const std::vector<float> sum = c.sum(false), gradient = c.gradient();
  double forward = 0, backward = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) forward += double{sum[i]} * c.upstream[i];
  for (std::size_t i = 0; i < gradient.size(); ++i) backward += double{gradient[i]} * c.weights[i];
  EXPECT_NEAR(forward, backward, 1e-3);
}

#if ABLATE_HAS_CUDA

using LayerSumGpu = test::GpuTest;

/// A case in device memory; `shift` moves every map off its alignment.
template <typename T>
struct OnDevice {
  OnDevice(const LayerCase<T>& host, std::size_t shift)
      : weights(host.weights),
        base(host.base, shift),
        upstream(host.upstream, shift),
        sum(host.size(), shift),
        gradient(host.weights.size()),
        layers(host.layers()) {
    for (std::size_t i = 0; i < host.maps.size(); ++i) {
      maps.push_back(std::make_unique<test::DeviceBuffer<T>>(host.maps[i], shift));
      layers.maps[i] = maps.back()->data();
    }
  }

  test::DeviceBuffer<float> weights;
  test::DeviceBuffer<T> base, upstream, sum;
  test::DeviceBuffer<float> gradient;
  std::vector<std::unique_ptr<test::DeviceBuffer<T>>> maps;
  LayerMaps<T> layers;
};

template <typename T>
void expect_reference(const LayerCase<T>& host, std::size_t shift) {
  if (test::too_large_here(host.batch * host.pixels * host.channels)) return;
  SCOPED_TRACE(cat(host.batch, " x ", host.pixels, " x ", host.channels, ", ", host.heads,
                   " heads, ", host.count, " maps, shift ", shift));
  OnDevice<T> device(host, shift);
  const double rounding = test::rounding_of<T>();
  for (const bool based : {false, true}) {
    layer_sum<T>({.layers = device.layers,
                  .weights = device.weights.data(),
                  .base = based ? device.base.data() : nullptr,
                  .sum = device.sum.data()},
                 nullptr);
    EXPECT_TRUE(test::all_close(device.sum.download(), host.sum(based), 1e-5, 2 * rounding));
  }
  const LayerSumGradient<T> arguments{.layers = device.layers,
                                      .upstream = device.upstream.data(),
                                      .gradient = device.gradient.data()};
  layer_sum_gradient<T>(arguments, nullptr);
  const std::vector<float> once = device.gradient.download();
  const double terms = static_cast<double>(host.pixels * host.channels / host.heads);
  EXPECT_TRUE(test::all_close(once, host.gradient(), 1e-6 * terms, 1e-5));
  layer_sum_gradient<T>(arguments, nullptr);
  EXPECT_TRUE(test::same_bits(device.gradient.download(), once));
  EXPECT_TRUE(device.sum.guards_intact());
  EXPECT_TRUE(device.gradient.guards_intact());
}

TEST_F(LayerSumGpu, GivesWhatTheReferenceGives) {
  const auto both = [](std::int64_t b, std::int64_t p, std::int64_t c, std::int64_t h,
                       std::int64_t n, std::size_t shift = 0) {
    expect_reference(LayerCase<float>(b, p, c, h, n), shift);
    expect_reference(LayerCase<bfloat16>(b, p, c, h, n), shift);
  };
  both(2, 9, 16, 2, 1);
  both(2, 9, 16, 16, 2);  // a weight for each channel
  both(3, 25, 64, 2, 5);
  both(3, 16, 24, 6, 4);    // heads narrower than a vector
  both(2, 7, 10, 2, 3);     // no whole vectors
  both(2, 9, 32, 2, 3, 1);  // not aligned
  both(4, 1024, 64, 2, 12);
  both(4, 64, 256, 8, 12);
  both(2, 49, 2048, 64, 3);
  both(1, 5, 4096, 128, 2);  // several blocks side by side
  both(2, 4, 8, 1, 64);
}

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate::kernels
