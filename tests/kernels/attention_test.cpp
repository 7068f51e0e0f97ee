#include "methods/kernels/attention.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// Inputs and results of attention and its gradient.
struct AttentionCase {
  AttentionShape shape;
  std::vector<bfloat16> qkv, out, grad_out, grad_qkv;
  std::vector<float> key_bias, log_sum_exp, bias_gradient;

  AttentionCase(const AttentionShape& s, bool biased, double spread = 1.0) : shape(s) {
    const auto tokens = static_cast<std::size_t>(s.batch * s.tokens);
    const auto width = static_cast<std::size_t>(s.heads * s.head_dim);
    qkv = test::normal_values<bfloat16>(tokens * 3 * width, 1, spread);
    out.resize(tokens * width);
    grad_out = test::normal_values<bfloat16>(tokens * width, 2);
    grad_qkv.resize(tokens * 3 * width);
    log_sum_exp.resize(tokens * static_cast<std::size_t>(s.heads));
    bias_gradient = test::normal_values<float>(3 * width, 3);
    if (!biased) return;
    RandomStream stream(4, Purpose::Test);
    for (std::size_t i = 0; i < tokens; ++i) {
      key_bias.push_back(std::log(static_cast<float>(1 + stream.below(20))));
    }
  }

  const float* bias() const { return key_bias.empty() ? nullptr : key_bias.data(); }
  Attention forward() {
    return {.shape = shape,
            .qkv = qkv.data(),
            .key_bias = bias(),
            .out = out.data(),
            .log_sum_exp = log_sum_exp.data()};
  }
  AttentionBackward backward() {
    return {.shape = shape,
            .qkv = qkv.data(),
            .key_bias = bias(),
            .out = out.data(),
            .log_sum_exp = log_sum_exp.data(),
            .grad_out = grad_out.data(),
            .grad_qkv = grad_qkv.data(),
            .qkv_bias_gradient = bias_gradient.data()};
  }
};

TEST(Attention, OneTokenPassesItsValueOn) {
  AttentionCase c({.batch = 2, .tokens = 1, .heads = 3, .head_dim = 32}, false);
  reference::attention(c.forward());
  for (std::size_t image = 0; image < 2; ++image) {
    for (std::size_t i = 0; i < 96; ++i) {
      EXPECT_EQ(to_float(c.out[image * 96 + i]), to_float(c.qkv[image * 288 + 192 + i]));
    }
  }
}

TEST(Attention, EqualKeysAverageTheValues) {
  AttentionCase c({.batch = 1, .tokens = 4, .heads = 1, .head_dim = 32}, false);
  for (std::size_t n = 0; n < 4; ++n) {
    for (std::size_t i = 0; i < 32; ++i) {
      c.qkv[n * 96 + 32 + i] = from_float<bfloat16>(0.5F);
      c.qkv[n * 96 + 64 + i] = from_float<bfloat16>(static_cast<float>(n));
    }
  }
  reference::attention(c.forward());
  for (const bfloat16 value : c.out) EXPECT_EQ(to_float(value), 1.5F);
}

/// Tokens repeated k times attend like one token with bias log k: proportional attention.
TEST(Attention, BiasOfLogSizeCountsAKeySoOften) {
  const std::vector<std::size_t> copies{1, 3, 2};
  AttentionCase merged({.batch = 1, .tokens = 3, .heads = 2, .head_dim = 32}, true);
  AttentionCase repeated({.batch = 1, .tokens = 6, .heads = 2, .head_dim = 32}, false);
  std::size_t row = 0;
  for (std::size_t token = 0; token < 3; ++token) {
    merged.key_bias[token] = std::log(static_cast<float>(copies[token]));
    for (std::size_t i = 0; i < copies[token]; ++i, ++row) {
      for (std::size_t c = 0; c < 192; ++c)
        repeated.qkv[row * 192 + c] = merged.qkv[token * 192 + c];
    }
  }
  reference::attention(merged.forward());
  reference::attention(repeated.forward());
  const std::vector<std::size_t> first{0, 1, 4};
  for (std::size_t token = 0; token < 3; ++token) {
    for (std::size_t c = 0; c < 64; ++c) {
      EXPECT_EQ(to_float(merged.out[token * 64 + c]),
                to_float(repeated.out[first[token] * 64 + c]));
    }
    for (std::size_t head = 0; head < 2; ++head) {
      EXPECT_NEAR(merged.log_sum_exp[head * 3 + token],
                  repeated.log_sum_exp[head * 6 + first[token]], 1e-5);
    }
  }
}

/// Loss sum(out * grad_out) of one head in double precision, with inputs that are not rounded.
double attention_loss(const std::vector<double>& qkv, const AttentionCase& c) {
  const auto tokens = static_cast<std::size_t>(c.shape.tokens);
  const auto dim = static_cast<std::size_t>(c.shape.head_dim);
  double loss = 0.0;
  for (std::size_t i = 0; i < tokens; ++i) {
    double total = 0.0, sum = 0.0;
    for (std::size_t j = 0; j < tokens; ++j) {
      double logit = 0.0, of_value = 0.0;
      for (std::size_t k = 0; k < dim; ++k) {
        logit += qkv[i * 3 * dim + k] * qkv[j * 3 * dim + dim + k];
        of_value += qkv[j * 3 * dim + 2 * dim + k] * to_float(c.grad_out[i * dim + k]);
      }
      const double weight = std::exp(logit / std::sqrt(static_cast<double>(dim)) + c.key_bias[j]);
      total += weight;
      sum += weight * of_value;
    }
    loss += sum / total;
  }
  return loss;
}

TEST(AttentionBackward, EqualsFiniteDifferences) {
  AttentionCase c({.batch = 1, .tokens = 5, .heads = 1, .head_dim = 32}, true);
  reference::attention(c.forward());
  reference::attention_backward(c.backward());
  std::vector<double> qkv;
  for (const bfloat16 value : c.qkv) qkv.push_back(to_float(value));
  for (std::size_t i = 0; i < qkv.size(); ++i) {
    constexpr double kStep = 1e-4;
    std::vector<double> moved = qkv;
    moved[i] += kStep;
    const double above = attention_loss(moved, c);
    moved[i] -= 2 * kStep;
    const double slope = (above - attention_loss(moved, c)) / (2 * kStep);
    // What rounding `out` and the gradient to bfloat16 costs.
    EXPECT_NEAR(to_float(c.grad_qkv[i]), slope, 0.02 + 0.005 * std::abs(slope)) << i;
  }
}

TEST(AttentionBackward, BiasGradientIsTheSumOverTokens) {
  AttentionCase c({.batch = 3, .tokens = 7, .heads = 2, .head_dim = 32}, false);
  const std::vector<float> before = c.bias_gradient;
  reference::attention(c.forward());
  reference::attention_backward(c.backward());
  for (std::size_t column = 0; column < 192; ++column) {
    double sum = before[column];
    for (std::size_t row = 0; row < 21; ++row) sum += to_float(c.grad_qkv[row * 192 + column]);
    EXPECT_NEAR(c.bias_gradient[column], sum, 0.05);
  }
}

TEST(Attention, SaysWhatItSupports) {
  EXPECT_TRUE(attention_supported(1, 64));
  EXPECT_TRUE(attention_supported(1025, 32));
  EXPECT_FALSE(attention_supported(0, 64));
  EXPECT_FALSE(attention_supported(197, 48));
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using AttentionGpu = test::GpuTest;

/// sqrt(sum of squared differences / sum of squares).
template <typename T>
double total_error(const std::vector<T>& actual, const std::vector<T>& expected) {
  double differences = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double want = to_float(expected[i]);
    differences += (to_float(actual[i]) - want) * (to_float(actual[i]) - want);
    squares += want * want;
  }
  return squares == 0.0 ? std::sqrt(differences) : std::sqrt(differences / squares);
}

template <typename T>
double largest(const std::vector<T>& values) {
  double most = 0.0;
  for (const T value : values) most = std::max(most, std::abs(double{to_float(value)}));
  return most;
}

/// The parts of grad_qkv on their own, so that a failure names the wrong one.
std::vector<bfloat16> gradient_part(const AttentionCase& c, const std::vector<bfloat16>& packed,
                                    std::size_t which) {
  const auto width = static_cast<std::size_t>(c.shape.heads * c.shape.head_dim);
  std::vector<bfloat16> part;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    if (i / width % 3 == which) part.push_back(packed[i]);
  }
  return part;
}

void expect_forward_equals_reference(AttentionCase& c) {
  reference::attention(c.forward());
  const DeviceBuffer<bfloat16> qkv(c.qkv, 8);
  const DeviceBuffer<float> key_bias(c.key_bias, 1);
  std::vector<bfloat16> first;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<bfloat16> out(c.out.size(), 16);
    DeviceBuffer<float> log_sum_exp(c.log_sum_exp.size(), 3);
    Attention arguments = c.forward();
    arguments.qkv = qkv.data();
    arguments.key_bias = c.key_bias.empty() ? nullptr : key_bias.data();
    arguments.out = out.data();
    arguments.log_sum_exp = log_sum_exp.data();
    attention(arguments, nullptr);
    const auto actual = out.download();
    const double size = largest(c.out);
    EXPECT_TRUE(test::all_close(actual, c.out, 1e-2 * size, 0.0)) << "out";
    EXPECT_LE(total_error(actual, c.out), 4e-3) << "out";
    EXPECT_TRUE(test::all_close(log_sum_exp.download(), c.log_sum_exp, 1e-4, 1e-5)) << "log sums";
    EXPECT_TRUE(out.guards_intact() && log_sum_exp.guards_intact());
    if (launch == 0) first = actual;
    EXPECT_TRUE(test::same_bits(actual, first)) << "second launch";
    arguments.log_sum_exp = nullptr;
    attention(arguments, nullptr);
    EXPECT_TRUE(test::same_bits(out.download(), first)) << "without log sums";
  }
}

/// With the reference's `out` and log-sums, so that only the backward kernels are tested. grad_q is
/// compared from channel `first_channel` of each head on.
void expect_backward_equals_reference(AttentionCase& c, bool bias_gradient, int first_channel = 0) {
  const std::vector<float> before = c.bias_gradient;
  reference::attention(c.forward());
  reference::attention_backward(c.backward());
  const DeviceBuffer<bfloat16> qkv(c.qkv, 8), out(c.out, 16), grad_out(c.grad_out, 24);
  const DeviceBuffer<float> key_bias(c.key_bias, 1), log_sum_exp(c.log_sum_exp, 3);
  DeviceBuffer<std::byte> workspace(attention_backward_workspace_bytes(c.shape, bias_gradient));
  std::vector<bfloat16> first;
  std::vector<float> first_bias;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<bfloat16> grad_qkv(c.grad_qkv.size(), 8);
    DeviceBuffer<float> bias(before, 1);
    const AttentionBackward arguments{.shape = c.shape,
                                      .qkv = qkv.data(),
                                      .key_bias = c.key_bias.empty() ? nullptr : key_bias.data(),
                                      .out = out.data(),
                                      .log_sum_exp = log_sum_exp.data(),
                                      .grad_out = grad_out.data(),
                                      .grad_qkv = grad_qkv.data(),
                                      .qkv_bias_gradient = bias_gradient ? bias.data() : nullptr};
    attention_backward(arguments, workspace.data(), nullptr);
    const auto actual = grad_qkv.download();
    const auto actual_bias = bias.download();
    for (std::size_t part = 0; part < 3; ++part) {
      auto got = gradient_part(c, actual, part);
      auto want = gradient_part(c, c.grad_qkv, part);
      for (std::size_t i = 0; part == 0 && i < want.size(); ++i) {
        if (static_cast<int>(i) % c.shape.head_dim < first_channel) got[i] = want[i] = bfloat16{};
      }
      // A single token attends to itself alone: its query and key have no gradient but rounding.
      if (c.shape.tokens == 1 && part < 2) {
        EXPECT_LE(largest(got), 1e-5 * largest(c.grad_qkv)) << "part " << part;
        continue;
      }
      EXPECT_TRUE(test::all_close(got, want, 1e-2 * largest(want), 1e-2)) << "part " << part;
      EXPECT_LE(total_error(got, want), 5e-3) << "part " << part;
    }
    if (bias_gradient) {
      // Errors of single elements, which are not correlated, add up over the rows.
      const double rows = static_cast<double>(c.shape.batch * c.shape.tokens);
      const double error = 4e-3 * largest(c.grad_qkv) * std::sqrt(rows);
      EXPECT_TRUE(test::all_close(actual_bias, c.bias_gradient, error, 1e-3)) << "bias";
    } else {
      EXPECT_TRUE(test::same_bits(actual_bias, before));
    }
    EXPECT_TRUE(grad_qkv.guards_intact() && bias.guards_intact() && workspace.guards_intact());
    if (launch == 0) first = actual;
    if (launch == 0) first_bias = actual_bias;
    EXPECT_TRUE(test::same_bits(actual, first)) << "second launch";
    EXPECT_TRUE(test::same_bits(actual_bias, first_bias)) << "second launch";
  }
}

struct AttentionSize {
  std::int64_t batch, tokens, heads;
};

// All the ways to divide the work: one tile, whole and broken tiles, exchanged and recomputed
// gradients, one and several blocks on a multiprocessor, too long for shared memory.
const std::vector<AttentionSize> kAttentionSizes{
    {1, 1, 1},   {2, 2, 3},   {1, 15, 2},  {3, 16, 1},  {1, 17, 2},  {2, 33, 1},   {2, 50, 3},
    {2, 65, 3},  {1, 80, 1},  {1, 93, 2},  {1, 112, 1}, {1, 119, 2}, {1, 128, 1},  {1, 129, 2},
    {1, 145, 1}, {1, 158, 2}, {1, 171, 1}, {1, 184, 2}, {2, 197, 3}, {1, 198, 1},  {1, 208, 2},
    {1, 209, 1}, {1, 257, 2}, {1, 432, 1}, {1, 433, 1}, {1, 577, 1}, {1, 1025, 1},
};

std::string attention_name(const AttentionSize& size, int dim, bool biased) {
  return cat("batch ", size.batch, ", tokens ", size.tokens, ", heads ", size.heads, ", d ", dim,
             biased ? ", with key bias" : "");
}

TEST_F(AttentionGpu, ForwardEqualsTheReference) {
  for (const AttentionSize& size : kAttentionSizes) {
    if (test::too_large_here(size.batch * size.tokens * size.tokens * size.heads / 8)) continue;
    for (const int dim : {32, 64}) {
      for (const bool biased : {false, true}) {
        SCOPED_TRACE(attention_name(size, dim, biased));
        AttentionCase c({size.batch, size.tokens, size.heads, dim}, biased);
        expect_forward_equals_reference(c);
      }
    }
  }
}

TEST_F(AttentionGpu, BackwardEqualsTheReference) {
  for (const AttentionSize& size : kAttentionSizes) {
    if (test::too_large_here(size.batch * size.tokens * size.tokens * size.heads / 8)) continue;
    for (const int dim : {32, 64}) {
      for (const bool biased : {false, true}) {
        SCOPED_TRACE(attention_name(size, dim, biased));
        AttentionCase c({size.batch, size.tokens, size.heads, dim}, biased);
        expect_backward_equals_reference(c, biased || size.tokens % 2 == 1);
      }
    }
  }
}

TEST_F(AttentionGpu, LargeLogitsStayFinite) {
  for (const std::int64_t tokens : {65, 197, 577}) {
    if (test::too_large_here(tokens * tokens)) continue;
    SCOPED_TRACE(tokens);
    AttentionCase c({1, tokens, 1, 64}, false, 6.0);
    expect_forward_equals_reference(c);
    AttentionCase again({1, tokens, 1, 64}, false, 6.0);
    expect_backward_equals_reference(again, true);
  }
}

/// All logits far below zero: keys that do not exist, whose products are zero, would win by far.
TEST_F(AttentionGpu, MissingKeysNeverCount) {
  for (const std::int64_t tokens : {5, 65, 197, 577}) {
    if (test::too_large_here(tokens * tokens)) continue;
    SCOPED_TRACE(tokens);
    AttentionCase c({1, tokens, 1, 64}, false);
    for (std::size_t row = 0; row < static_cast<std::size_t>(tokens); ++row) {
      c.qkv[row * 192] = from_float<bfloat16>(60.0F);
      c.qkv[row * 192 + 64] = from_float<bfloat16>(-60.0F);
    }
    expect_forward_equals_reference(c);
    // In channel 0 the gradient of q is a sum of large terms that cancel.
    expect_backward_equals_reference(c, false, 1);
  }
}

TEST_F(AttentionGpu, RefusesWhatItCannotDo) {
  AttentionCase c({1, 4, 1, 32}, false);
  Attention arguments = c.forward();
  arguments.shape.head_dim = 48;
  EXPECT_ANY_THROW(attention(arguments, nullptr));
  arguments = c.forward();
  ++arguments.out;
  EXPECT_ANY_THROW(attention(arguments, nullptr));
}

#endif

}  // namespace
}  // namespace ablate::kernels
