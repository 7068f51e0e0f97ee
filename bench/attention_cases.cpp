#include <string_view>

#include "bench/kernels_bench.h"
#include "methods/kernels/attention.h"
#include "runner/core/text.h"

namespace ablate::kernels::bench {
namespace {

std::string attention_name(std::string_view op, const AttentionShape& shape, bool biased) {
  return cat("\"op\": \"", op, "\", \"heads\": ", shape.batch * shape.heads,
             ", \"tokens\": ", shape.tokens, ", \"head_dim\": ", shape.head_dim,
             ", \"key_bias\": ", biased ? "true" : "false");
}

/// Elements of (B, N, H, d).
std::int64_t attention_elements(const AttentionShape& shape) {
  return shape.batch * shape.tokens * shape.heads * shape.head_dim;
}

double attention_product(const AttentionShape& shape) {
  return 2.0 * static_cast<double>(attention_elements(shape)) * static_cast<double>(shape.tokens);
}

Case attention_case(const AttentionShape& shape, bool biased) {
  return {attention_name("attention", shape, biased), [=] {
            const std::int64_t count = attention_elements(shape);
            const std::int64_t rows = shape.batch * shape.heads * shape.tokens;
            const auto qkv = random_values<bfloat16>(3 * count);
            const auto bias = random_values<float>(shape.batch * shape.tokens);
            const auto out = allocate<bfloat16>(count);
            const auto log_sum_exp = allocate<float>(rows);
            const auto run = [=](Stream stream) {
              attention({.shape = shape,
                         .qkv = qkv.get(),
                         .key_bias = biased ? bias.get() : nullptr,
                         .out = out.get(),
                         .log_sum_exp = log_sum_exp.get()},
                        stream);
            };
            return Work{run, 8.0 * static_cast<double>(count) + 4.0 * static_cast<double>(rows),
                        2.0 * attention_product(shape)};
          }};
}

Case attention_backward_case(const AttentionShape& shape, bool biased, bool bias_gradient) {
  return {attention_name(bias_gradient ? "attention_backward, bias gradient" : "attention_backward",
                         shape, biased),
          [=] {
            const std::int64_t count = attention_elements(shape);
            const std::int64_t rows = shape.batch * shape.heads * shape.tokens;
            const auto qkv = random_values<bfloat16>(3 * count);
            const auto grad_out = random_values<bfloat16>(count);
            const auto bias = random_values<float>(shape.batch * shape.tokens);
            const auto out = allocate<bfloat16>(count);
            const auto log_sum_exp = allocate<float>(rows);
            const auto grad_qkv = allocate<bfloat16>(3 * count);
            const auto sums = random_values<float>(3 * shape.heads * shape.head_dim);
            const auto workspace = allocate<std::byte>(static_cast<std::int64_t>(
                attention_backward_workspace_bytes(shape, bias_gradient)));
            const float* key_bias = biased ? bias.get() : nullptr;
            attention({.shape = shape,
                       .qkv = qkv.get(),
                       .key_bias = key_bias,
                       .out = out.get(),
                       .log_sum_exp = log_sum_exp.get()},
                      nullptr);
            check_cuda(cudaDeviceSynchronize());
            const auto run = [=](Stream stream) {
              attention_backward({.shape = shape,
                                  .qkv = qkv.get(),
                                  .key_bias = biased ? bias.get() : nullptr,
                                  .out = out.get(),
                                  .log_sum_exp = log_sum_exp.get(),
                                  .grad_out = grad_out.get(),
                                  .grad_qkv = grad_qkv.get(),
                                  .qkv_bias_gradient = bias_gradient ? sums.get() : nullptr},
                                 workspace.get(), stream);
            };
            return Work{run, 16.0 * static_cast<double>(count) + 4.0 * static_cast<double>(rows),
                        5.0 * attention_product(shape)};
          }};
}

}  // namespace

std::vector<Case> attention_cases() {
  std::vector<Case> all;
  for (const AttentionShape& shape :
       {AttentionShape{256, 197, 6, 64}, AttentionShape{256, 197, 3, 64},
        AttentionShape{256, 197, 12, 64}, AttentionShape{128, 65, 3, 64}}) {
    all.push_back(attention_case(shape, false));
    all.push_back(attention_backward_case(shape, false, false));
    all.push_back(attention_backward_case(shape, false, true));
  }
  // The sequence lengths of DeiT-S with 13 tokens merged a block.
  for (std::int64_t tokens = 197; tokens >= 41; tokens -= 13) {
    all.push_back(attention_case({256, tokens, 6, 64}, true));
    all.push_back(attention_backward_case({256, tokens, 6, 64}, true, true));
  }
  for (const std::int64_t tokens : {257, 577, 1025}) {
    all.push_back(attention_case({64, tokens, 6, 64}, false));
    all.push_back(attention_backward_case({64, tokens, 6, 64}, false, true));
  }
  return all;
}

}  // namespace ablate::kernels::bench
