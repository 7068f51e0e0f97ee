#include "bench/kernels_bench.h"
#include "methods/kernels/batch_norm.h"
#include "methods/kernels/linear_attention.h"
#include "runner/core/text.h"

namespace ablate::kernels::bench {
namespace {

/// Memory of one normalisation with everything that its passes read and write.
struct Norm {
  explicit Norm(const BatchNormShape& size)
      : shape(size),
        x(random_values<bfloat16>(count())),
        dy(random_values<bfloat16>(count())),
        y(allocate<bfloat16>(count())),
        g(allocate<bfloat16>(count())),
        mask(allocate<std::uint8_t>(count() / 8)),
        numbers(random_values<float>(8 * size.values())),
        workspace(allocate<char>(static_cast<std::int64_t>(batch_norm_workspace_bytes(size)))) {}
  std::int64_t count() const { return shape.rows * shape.values(); }
  float* table(std::int64_t i) const { return numbers.get() + i * shape.values(); }
  BatchNormTables tables() const { return BatchNormTables::in(table(0), shape); }
  BatchNormBranch branch() const {
    return {x.get(), tables(), table(4), table(5), table(6), table(7)};
  }

  BatchNormShape shape;
  std::shared_ptr<bfloat16> x, dy, y, g;
  std::shared_ptr<std::uint8_t> mask;
  std::shared_ptr<float> numbers;
  std::shared_ptr<char> workspace;
};

template <typename Run>
Case norm_case(const char* op, const BatchNormShape& shape, double bytes, const Run& run) {
  return {cat("\"op\": \"", op, "\", \"rows\": ", shape.rows, ", \"channels\": ", shape.channels),
          [=] {
            const Norm norm(shape);
            return Work{[=](Stream stream) { run(norm, stream); },
                        bytes * static_cast<double>(norm.count())};
          }};
}

void add_norm_cases(const BatchNormShape& shape, std::vector<Case>& all) {
  all.push_back(norm_case("batch_norm_statistics", shape, 2, [](const Norm& n, Stream stream) {
    batch_norm_statistics({.shape = n.shape,
                           .x = n.x.get(),
                           .gamma = n.table(6),
                           .beta = n.table(7),
                           .tables = n.tables()},
                          n.workspace.get(), stream);
  }));
  all.push_back(norm_case("batch_norm_apply", shape, 6.125, [](const Norm& n, Stream stream) {
    batch_norm_apply({.shape = n.shape,
                      .x = n.x.get(),
                      .tables = n.tables(),
                      .residual = n.dy.get(),
                      .y = n.y.get(),
                      .mask = n.mask.get()},
                     stream);
  }));
  all.push_back(norm_case("batch_norm_reduce", shape, 8.125, [](const Norm& n, Stream stream) {
    batch_norm_reduce({.shape = n.shape,
                       .dy = n.dy.get(),
                       .dy_more = n.y.get(),
                       .mask = n.mask.get(),
                       .g = n.g.get(),
                       .branch = n.branch()},
                      n.workspace.get(), stream);
  }));
  all.push_back(norm_case("batch_norm_input_gradient", shape, 6, [](const Norm& n, Stream stream) {
    batch_norm_input_gradient(
        {.shape = n.shape, .g = n.g.get(), .branch = n.branch(), .dx = n.y.get()}, stream);
  }));
}

Case linear_attention_case(const AttentionShape& shape, bool backward) {
  return {cat("\"op\": \"", backward ? "linear_attention_backward" : "linear_attention",
              "\", \"batch\": ", shape.batch, ", \"tokens\": ", shape.tokens,
              ", \"heads\": ", shape.heads, ", \"head_dim\": ", shape.head_dim),
          [=] {
            const std::int64_t width = shape.heads * shape.head_dim,
                               count = shape.batch * shape.tokens * width;
            const auto qkv = random_values<bfloat16>(3 * count);
            const auto out = random_values<bfloat16>(count);
            const auto grad_out = random_values<bfloat16>(count);
            const auto grad = allocate<bfloat16>(3 * count);
            const auto run = [=](Stream stream) {
              const LinearAttention forward{.shape = shape,
                                            .q = {qkv.get(), 3 * width},
                                            .k = {qkv.get() + width, 3 * width},
                                            .v = {qkv.get() + 2 * width, 3 * width},
                                            .out = out.get()};
              if (!backward) return linear_attention(forward, stream);
              linear_attention_backward({.forward = forward,
                                         .grad_out = grad_out.get(),
                                         .grad_q = {grad.get(), 3 * width},
                                         .grad_k = {grad.get() + width, 3 * width},
                                         .grad_v = {grad.get() + 2 * width, 3 * width}},
                                        stream);
            };
            const auto products = static_cast<double>(count * shape.head_dim);
            return Work{run, (backward ? 16.0 : 8.0) * static_cast<double>(count),
                        (backward ? 12.0 : 4.0) * products};
          }};
}

}  // namespace

std::vector<Case> norm_cases() {
  std::vector<Case> all;
  // The stem and the block outputs of ResNet-50 with 256 images.
  for (const auto& [side, channels] :
       {std::pair{112, 64}, std::pair{56, 256}, std::pair{28, 512}, std::pair{14, 1024},
        std::pair{7, 2048}, std::pair{14, 256}}) {
    add_norm_cases({.groups = 1, .rows = std::int64_t{256} * side * side, .channels = channels},
                   all);
  }
  for (const bool backward : {false, true}) {
    all.push_back(linear_attention_case({256, 197, 6, 64}, backward));
    all.push_back(linear_attention_case({128, 3136, 3, 32}, backward));
  }
  return all;
}

}  // namespace ablate::kernels::bench
