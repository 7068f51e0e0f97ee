#include "methods/kernels/linear_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ablate::kernels::reference {
namespace {

/// u of one row, and the norms of u and of its cube.
struct FocusRow {
  FocusRow(const Focus& a, std::int64_t row) : u(static_cast<std::size_t>(a.width)) {
    for (std::size_t c = 0; c < u.size(); ++c) {
      const double x = to_float(a.x[row * a.x_stride + static_cast<std::int64_t>(c)]);
      u[c] = (std::max(x, 0.0) + a.eps) / a.scale[c];
      norm += u[c] * u[c];
      cube_norm += std::pow(u[c], 6);
    }
    norm = std::sqrt(norm);
    cube_norm = std::sqrt(cube_norm);
  }

  std::vector<double> u;
  double norm = 0.0, cube_norm = 0.0;
};

/// One head of one image in double, and where its rows lie.
struct LinearHead {
  LinearHead(const LinearAttention& arguments, std::int64_t index)
      : a(arguments), image(index / a.shape.heads), head(index % a.shape.heads) {}
  std::int64_t place(std::int64_t stride, std::int64_t token, int channel) const {
    return (image * a.shape.tokens + token) * stride + head * a.shape.head_dim + channel;
  }
  double at(const TokenRows<const bfloat16>& rows, std::int64_t token, int channel) const {
    return to_float(rows.data[place(rows.stride, token, channel)]);
  }
  /// Of (B, N, H, d).
  std::int64_t dense(std::int64_t token, int channel) const {
    return place(a.shape.heads * a.shape.head_dim, token, channel);
  }
  double product(std::int64_t query, std::int64_t key) const {
    double sum = 0.0;
    for (int c = 0; c < a.shape.head_dim; ++c) sum += at(a.q, query, c) * at(a.k, key, c);
    return sum;
  }
  double normaliser(std::int64_t query) const {
    double sum = static_cast<double>(a.shape.tokens) * a.eps;
    for (std::int64_t key = 0; key < a.shape.tokens; ++key) sum += product(query, key);
    return sum;
  }

  const LinearAttention& a;
  std::int64_t image, head;
};

void attend(const LinearHead& head) {
  const AttentionShape& shape = head.a.shape;
  for (std::int64_t i = 0; i < shape.tokens; ++i) {
    const double normaliser = head.normaliser(i);
    std::vector<double> sums(static_cast<std::size_t>(shape.head_dim));
    for (std::int64_t j = 0; j < shape.tokens; ++j) {
      const double share = head.product(i, j) / normaliser;
      for (int c = 0; c < shape.head_dim; ++c) {
        sums[static_cast<std::size_t>(c)] += share * head.at(head.a.v, j, c);
      }
    }
    for (int c = 0; c < shape.head_dim; ++c) {
      head.a.out[head.dense(i, c)] =
          from_float<bfloat16>(static_cast<float>(sums[static_cast<std::size_t>(c)]));
    }
  }
}

/// Through the matrix of shares A_ij: the definition, in a time quadratic in the tokens.
void differentiate(const LinearAttentionBackward& b, const LinearHead& head) {
  const AttentionShape& shape = head.a.shape;
  const auto size = static_cast<std::size_t>(shape.tokens * shape.head_dim);
  std::vector<double> dq(size), dk(size), dv(size);
  const auto flat = [&](std::int64_t token, int channel) {
    return static_cast<std::size_t>(token * shape.head_dim + channel);
  };
  for (std::int64_t i = 0; i < shape.tokens; ++i) {
    const double normaliser = head.normaliser(i);
    double mean = 0.0;  // of the gradients of the shares, weighted with the shares
    std::vector<double> gradient(static_cast<std::size_t>(shape.tokens));
    for (std::int64_t j = 0; j < shape.tokens; ++j) {
      const double share = head.product(i, j) / normaliser;
      for (int c = 0; c < shape.head_dim; ++c) {
        const double dy = to_float(b.grad_out[head.dense(i, c)]);
        gradient[static_cast<std::size_t>(j)] += dy * head.at(head.a.v, j, c);
        dv[flat(j, c)] += share * dy;
      }
      mean += share * gradient[static_cast<std::size_t>(j)];
    }
    for (std::int64_t j = 0; j < shape.tokens; ++j) {
      const double d_product = (gradient[static_cast<std::size_t>(j)] - mean) / normaliser;
      for (int c = 0; c < shape.head_dim; ++c) {
        dq[flat(i, c)] += d_product * head.at(head.a.k, j, c);
        dk[flat(j, c)] += d_product * head.at(head.a.q, i, c);
      }
    }
  }
  const auto write = [&](const TokenRows<bfloat16>& to, const std::vector<double>& from) {
    for (std::int64_t i = 0; i < shape.tokens; ++i) {
      for (int c = 0; c < shape.head_dim; ++c) {
        to.data[head.place(to.stride, i, c)] =
            from_float<bfloat16>(static_cast<float>(from[flat(i, c)]));
      }
    }
  };
  write(b.grad_q, dq);
  write(b.grad_k, dk);
  write(b.grad_v, dv);
}

}  // namespace

void focus(const Focus& a) {
  for (std::int64_t row = 0; row < a.rows; ++row) {
    const FocusRow found(a, row);
    for (std::int64_t c = 0; c < a.width; ++c) {
      const double u = found.u[static_cast<std::size_t>(c)];
      a.y[row * a.y_stride + c] =
          from_float<bfloat16>(static_cast<float>(found.norm / found.cube_norm * u * u * u));
    }
  }
}

void focus_backward(const FocusBackward& b) {
  const Focus& a = b.forward;
  std::vector<double> d_scale(static_cast<std::size_t>(a.width));
  for (std::int64_t row = 0; row < a.rows; ++row) {
    const FocusRow found(a, row);
    const double r = found.norm, m = found.cube_norm;
    double along = 0.0;  // dy . u^3
    for (std::int64_t c = 0; c < a.width; ++c) {
      along +=
          to_float(b.dy[row * b.dy_stride + c]) * std::pow(found.u[static_cast<std::size_t>(c)], 3);
    }
    for (std::int64_t c = 0; c < a.width; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const double u = found.u[i], dy = to_float(b.dy[row * b.dy_stride + c]);
      const double du =
          along * u / (m * r) + 3.0 * u * u * r / m * (dy - u * u * u * along / (m * m));
      const bool open = to_float(a.x[row * a.x_stride + c]) > 0.0F;
      d_scale[i] -= du * u / a.scale[c];
      b.dx[row * b.dx_stride + c] =
          from_float<bfloat16>(open ? static_cast<float>(du / a.scale[c]) : 0.0F);
    }
  }
  for (std::int64_t c = 0; c < a.width; ++c) {
    b.d_scale[c] = static_cast<float>(b.d_scale[c] + d_scale[static_cast<std::size_t>(c)]);
  }
}

void linear_attention(const LinearAttention& a) {
  for (std::int64_t i = 0; i < a.shape.batch * a.shape.heads; ++i) attend(LinearHead(a, i));
}

void linear_attention_backward(const LinearAttentionBackward& b) {
  for (std::int64_t i = 0; i < b.forward.shape.batch * b.forward.shape.heads; ++i) {
    differentiate(b, LinearHead(b.forward, i));
  }
}

}  // namespace ablate::kernels::reference
