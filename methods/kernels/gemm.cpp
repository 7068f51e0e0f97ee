#include "methods/kernels/gemm.h"

#include "runner/core/text.h"

namespace ablate::kernels {

std::string GemmShape::str() const {
  return cat(m, "x", n, "x", k, " ", transpose_a ? "t" : "n", transpose_b ? "t" : "n",
             float_output ? " fp32" : " bf16", accumulate ? " +=" : "", bias ? " bias" : "");
}

GemmShape linear_forward(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return {.m = rows, .n = out, .k = in, .transpose_b = true, .bias = true};
}

GemmShape linear_input_gradient(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return {.m = rows, .n = in, .k = out};
}

GemmShape linear_weight_gradient(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return {
      .m = out, .n = in, .k = rows, .transpose_a = true, .float_output = true, .accumulate = true};
}

namespace reference {

template <typename T>
void gemm(const GemmShape& shape, const bfloat16* a, const bfloat16* b, T* c,
          const bfloat16* bias) {
  for (std::int64_t i = 0; i < shape.m; ++i) {
    for (std::int64_t j = 0; j < shape.n; ++j) {
      double sum = shape.accumulate ? static_cast<double>(to_float(c[i * shape.n + j])) : 0.0;
      if (shape.bias) sum += static_cast<double>(to_float(bias[j]));
      for (std::int64_t l = 0; l < shape.k; ++l) {
        const auto left = to_float(a[shape.transpose_a ? l * shape.m + i : i * shape.k + l]);
        const auto right = to_float(b[shape.transpose_b ? j * shape.k + l : l * shape.n + j]);
        sum += static_cast<double>(left) * static_cast<double>(right);
      }
      c[i * shape.n + j] = from_float<T>(static_cast<float>(sum));
    }
  }
}

template void gemm<float>(const GemmShape&, const bfloat16*, const bfloat16*, float*,
                          const bfloat16*);
template void gemm<bfloat16>(const GemmShape&, const bfloat16*, const bfloat16*, bfloat16*,
                             const bfloat16*);

}  // namespace reference
}  // namespace ablate::kernels
