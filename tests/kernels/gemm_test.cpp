#include "methods/kernels/gemm.h"

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using test::all_close;
using test::normal_values;

std::size_t elements(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(rows * columns);
}

TEST(GemmReference, MultipliesByHand) {
  const auto of = [](std::vector<float> values) {
    std::vector<bfloat16> rounded;
    for (const float value : values) rounded.push_back(from_float<bfloat16>(value));
    return rounded;
  };
  const auto a = of({1, 2, 3, 4, 5, 6});   // (2, 3), or transposed (3, 2)
  const auto b = of({1, 0, -1, 2, 1, 1});  // (3, 2), or transposed (2, 3)
  const auto bias = of({10, 20});
  std::vector<float> c(4, 100.0F);
  reference::gemm({.m = 2, .n = 2, .k = 3, .float_output = true}, a.data(), b.data(), c.data(),
                  nullptr);
  EXPECT_EQ(c, (std::vector<float>{2, 7, 5, 16}));
  reference::gemm({.m = 2,
                   .n = 2,
                   .k = 3,
                   .transpose_b = true,
                   .float_output = true,
                   .accumulate = true,
                   .bias = true},
                  a.data(), b.data(), c.data(), bias.data());
  EXPECT_EQ(c, (std::vector<float>{2 + 10 - 2, 7 + 20 + 7, 5 + 10 - 2, 16 + 20 + 19}));
  std::vector<float> square(4);
  reference::gemm({.m = 2, .n = 2, .k = 3, .transpose_a = true, .float_output = true}, a.data(),
                  b.data(), square.data(), nullptr);
  EXPECT_EQ(square, (std::vector<float>{1 - 3 + 5, 6 + 5, 2 - 4 + 6, 8 + 6}));
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;

class GemmGpu : public test::GpuTest {
 protected:
  template <typename T>
  void expect_product(Gemm& gemm, const GemmShape& shape) {
    const auto a = normal_values<bfloat16>(elements(shape.m, shape.k), 1);
    const auto b = normal_values<bfloat16>(elements(shape.k, shape.n), 2, 0.1);
    const auto bias = normal_values<bfloat16>(elements(1, shape.n), 3);
    std::vector<T> expected = normal_values<T>(elements(shape.m, shape.n), 4);
    DeviceBuffer<bfloat16> device_a(a), device_b(b), device_bias(bias);
    DeviceBuffer<T> device_c(expected);
    reference::gemm(shape, a.data(), b.data(), expected.data(), bias.data());
    gemm.run(shape, device_a.data(), device_b.data(), device_c.data(), device_bias.data(), nullptr);
    const auto actual = device_c.download();
    EXPECT_TRUE(all_close(actual, expected, 1e-3, 2 * test::rounding_of<T>())) << shape.str();
    EXPECT_TRUE(device_c.guards_intact()) << shape.str();
  }
};

TEST_F(GemmGpu, TheThreeProductsOfALinearLayer) {
  Gemm gemm;
  for (const bool timing : {false, true}) {
    gemm.set_timing(timing);
    gemm.set_choices({});
    for (const auto& [rows, in, out] :
         {std::array<std::int64_t, 3>{65, 192, 576}, {197, 64, 104}, {256, 768, 8}, {1, 64, 64}}) {
      expect_product<bfloat16>(gemm, linear_forward(rows, in, out));
      expect_product<bfloat16>(gemm, linear_input_gradient(rows, in, out));
      expect_product<float>(gemm, linear_weight_gradient(rows, in, out));
    }
  }
}

TEST_F(GemmGpu, RecordedChoicesGiveTheSameBits) {
  const GemmShape shape = linear_weight_gradient(788, 192, 768);
  const auto a = normal_values<bfloat16>(elements(shape.m, shape.k), 1);
  const auto b = normal_values<bfloat16>(elements(shape.k, shape.n), 2);
  DeviceBuffer<bfloat16> device_a(a), device_b(b);
  const auto product = [&](Gemm& gemm) {
    DeviceBuffer<float> c(std::vector<float>(elements(shape.m, shape.n), 0.5F));
    gemm.run(shape, device_a.data(), device_b.data(), c.data(), nullptr, nullptr);
    return c.download();
  };
  Gemm first;
  first.set_timing(true);
  const auto chosen = product(first);
  EXPECT_EQ(first.choices().count(shape.str()), 1U);
  Gemm second;
  second.set_choices(first.choices());
  EXPECT_TRUE(test::same_bits(product(second), chosen));
  EXPECT_TRUE(test::same_bits(product(second), chosen));
  EXPECT_EQ(second.choices(), first.choices());
}

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate::kernels
