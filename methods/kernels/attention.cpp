#include "methods/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ablate::kernels {

bool attention_supported(std::int64_t tokens, int head_dim) {
  return (head_dim == 32 || head_dim == 64) && tokens >= 1 && tokens <= 65535;
}

namespace reference {
namespace {

/// One head of one image in double precision.
struct Head {
  Head(const AttentionShape& shape, const bfloat16* packed, const float* key_bias,
       std::int64_t batch, std::int64_t head)
      : tokens(shape.tokens),
        dim(shape.head_dim),
        stride(3 * shape.heads * dim),
        part(shape.heads * dim),
        first(batch * tokens * stride + head * dim),
        scale(1.0 / std::sqrt(static_cast<double>(dim))),
        qkv(packed),
        bias(key_bias == nullptr ? nullptr : key_bias + batch * tokens) {}

  /// Place of channel c of token n in part 0 (q), 1 (k) or 2 (v).
  std::int64_t at(int which, std::int64_t n, std::int64_t c) const {
    return first + n * stride + which * part + c;
  }
  double value(int which, std::int64_t n, std::int64_t c) const {
    return to_float(qkv[at(which, n, c)]);
  }
  double logit(std::int64_t query, std::int64_t key) const {
    double sum = 0.0;
    for (std::int64_t c = 0; c < dim; ++c) sum += value(0, query, c) * value(1, key, c);
    return sum * scale + (bias == nullptr ? 0.0 : static_cast<double>(bias[key]));
  }

  std::int64_t tokens, dim, stride, part, first;
  double scale;
  const bfloat16* qkv;
  const float* bias;
};

std::int64_t out_index(const AttentionShape& shape, std::int64_t b, std::int64_t h, std::int64_t n,
                       std::int64_t c) {
  return ((b * shape.tokens + n) * shape.heads + h) * shape.head_dim + c;
}

std::int64_t row_index(const AttentionShape& shape, std::int64_t b, std::int64_t h,
                       std::int64_t n) {
  return (b * shape.heads + h) * shape.tokens + n;
}

void head_forward(const Attention& a, std::int64_t b, std::int64_t h) {
  const Head head(a.shape, a.qkv, a.key_bias, b, h);
  std::vector<double> weights(static_cast<std::size_t>(head.tokens));
  for (std::int64_t query = 0; query < head.tokens; ++query) {
    for (std::int64_t key = 0; key < head.tokens; ++key) {
      weights[static_cast<std::size_t>(key)] = head.logit(query, key);
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (std::int64_t c = 0; c < head.dim; ++c) {
      double sum = 0.0;
      for (std::int64_t key = 0; key < head.tokens; ++key) {
        sum += weights[static_cast<std::size_t>(key)] * head.value(2, key, c);
      }
      a.out[out_index(a.shape, b, h, query, c)] =
          from_float<bfloat16>(static_cast<float>(sum / total));
    }
    if (a.log_sum_exp != nullptr) {
      a.log_sum_exp[row_index(a.shape, b, h, query)] = static_cast<float>(top + std::log(total));
    }
  }
}

void head_backward(const AttentionBackward& a, std::int64_t b, std::int64_t h,
                   std::vector<double>& bias_sums) {
  const Head head(a.shape, a.qkv, a.key_bias, b, h);
  const auto grad_out = [&](std::int64_t n, std::int64_t c) -> double {
    return to_float(a.grad_out[out_index(a.shape, b, h, n, c)]);
  };
  const std::int64_t d = head.dim;
  std::vector<double> grads(static_cast<std::size_t>(3 * head.tokens * d));
  const auto grad = [&](int which, std::int64_t n, std::int64_t c) -> double& {
    return grads[static_cast<std::size_t>((which * head.tokens + n) * d + c)];
  };
  for (std::int64_t query = 0; query < head.tokens; ++query) {
    double delta = 0.0;
    for (std::int64_t c = 0; c < d; ++c) {
      delta += grad_out(query, c) *
               static_cast<double>(to_float(a.out[out_index(a.shape, b, h, query, c)]));
    }
    const double log_sum = a.log_sum_exp[row_index(a.shape, b, h, query)];
    for (std::int64_t key = 0; key < head.tokens; ++key) {
      const double weight = std::exp(head.logit(query, key) - log_sum);
      double grad_weight = 0.0;
      for (std::int64_t c = 0; c < d; ++c)
        grad_weight += grad_out(query, c) * head.value(2, key, c);
      const double grad_logit = weight * (grad_weight - delta) * head.scale;
      for (std::int64_t c = 0; c < d; ++c) {
        grad(0, query, c) += grad_logit * head.value(1, key, c);
        grad(1, key, c) += grad_logit * head.value(0, query, c);
        grad(2, key, c) += weight * grad_out(query, c);
      }
    }
  }
  for (int which = 0; which < 3; ++which) {
    for (std::int64_t n = 0; n < head.tokens; ++n) {
      for (std::int64_t c = 0; c < d; ++c) {
        a.grad_qkv[head.at(which, n, c)] =
            from_float<bfloat16>(static_cast<float>(grad(which, n, c)));
        bias_sums[static_cast<std::size_t>(which * head.part + h * d + c)] += grad(which, n, c);
      }
    }
  }
}

}  // namespace

void attention(const Attention& arguments) {
  for (std::int64_t b = 0; b < arguments.shape.batch; ++b) {
    for (std::int64_t h = 0; h < arguments.shape.heads; ++h) head_forward(arguments, b, h);
  }
}

void attention_backward(const AttentionBackward& arguments) {
  const AttentionShape& shape = arguments.shape;
  std::vector<double> bias_sums(static_cast<std::size_t>(3 * shape.heads * shape.head_dim));
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t h = 0; h < shape.heads; ++h) head_backward(arguments, b, h, bias_sums);
  }
  if (arguments.qkv_bias_gradient == nullptr) return;
  for (std::size_t c = 0; c < bias_sums.size(); ++c) {
    arguments.qkv_bias_gradient[c] =
        static_cast<float>(arguments.qkv_bias_gradient[c] + bias_sums[c]);
  }
}

}  // namespace reference
}  // namespace ablate::kernels
