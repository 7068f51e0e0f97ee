#include "bench/kernels_bench.h"
#include "methods/kernels/add_norm.h"
#include "methods/kernels/token_match.h"
#include "methods/kernels/token_merge.h"
#include "runner/core/text.h"

namespace ablate::kernels::bench {
namespace {

/// Maps of a batch, made by the kernel itself.
struct Maps {
  std::shared_ptr<std::int32_t> positions, offsets, members;
  TokenGroups groups() const { return {positions.get(), offsets.get(), members.get()}; }
};

Maps allocate_maps(const TokenMatch& shape) {
  const std::int64_t count = shape.batch * shape.tokens;
  return {allocate<std::int32_t>(count), allocate<std::int32_t>(count + shape.batch),
          allocate<std::int32_t>(count)};
}

Case match_case(const TokenMatch& shape) {
  return {cat("\"op\": \"match_tokens\", \"batch\": ", shape.batch, ", \"tokens\": ", shape.tokens,
              ", \"heads\": ", shape.heads, ", \"merged\": ", shape.merged),
          [=] {
            const std::int64_t keys = shape.batch * shape.tokens * shape.heads * shape.head_dim;
            const auto qkv = random_values<bfloat16>(3 * keys);
            const Maps maps = allocate_maps(shape);
            const auto run = [=](Stream stream) {
              TokenMatch arguments = shape;
              arguments.qkv = qkv.get();
              arguments.groups = maps.groups();
              match_tokens(arguments, stream);
            };
            const double similarities = static_cast<double>(shape.tokens * shape.tokens) / 4.0;
            return Work{run, 2.0 * static_cast<double>(keys),
                        2.0 * static_cast<double>(shape.batch * shape.head_dim) * similarities};
          }};
}

template <typename T>
Case merge_case(const TokenMatch& shape, std::int64_t width, bool backward) {
  return {
      cat("\"op\": \"", backward ? "merge_tokens_backward" : "merge_tokens",
          "\", \"bytes\": ", sizeof(T), ", \"batch\": ", shape.batch,
          ", \"tokens\": ", shape.tokens, ", \"merged\": ", shape.merged, ", \"width\": ", width),
      [=] {
        const std::int64_t after = shape.tokens - shape.merged;
        const auto x = random_values<T>(shape.batch * shape.tokens * width);
        const auto y = random_values<T>(shape.batch * after * width);
        const auto sizes = allocate<float>(shape.batch * after);
        const Maps maps = allocate_maps(shape);
        const auto qkv =
            random_values<bfloat16>(3 * shape.batch * shape.tokens * shape.heads * shape.head_dim);
        TokenMatch arguments = shape;
        arguments.qkv = qkv.get();
        arguments.groups = maps.groups();
        match_tokens(arguments, nullptr);
        const TokenMerge<T> merge{.batch = shape.batch,
                                  .tokens = shape.tokens,
                                  .new_tokens = after,
                                  .width = width,
                                  .x = x.get(),
                                  .offsets = maps.offsets.get(),
                                  .members = maps.members.get(),
                                  .merged = y.get(),
                                  .merged_sizes = sizes.get()};
        merge_tokens(merge, nullptr);
        check_cuda(cudaDeviceSynchronize());
        // The function keeps the memory.
        const auto run = [=](Stream stream) {
          if (backward) {
            merge_tokens_backward(TokenMergeBackward<T>{.batch = shape.batch,
                                                        .tokens = shape.tokens,
                                                        .new_tokens = after,
                                                        .width = width,
                                                        .grad_merged = y.get(),
                                                        .merged_sizes = sizes.get(),
                                                        .positions = maps.positions.get(),
                                                        .grad_x = x.get()},
                                  stream);
          } else {
            merge_tokens(merge, stream);
          }
        };
        return Work{run,
                    static_cast<double>(shape.batch * (shape.tokens + after) * width) * sizeof(T)};
      }};
}

/// What a grouped join reads and writes; the maps come from random keys.
struct GroupedJoin {
  AddNormShape shape;
  Maps maps;
  std::shared_ptr<float> shares, base, x, statistics, gamma, dx, d_base;
  std::shared_ptr<bfloat16> branch, y, d_branch;
  std::shared_ptr<std::byte> workspace;

  GroupedJoin(const TokenMatch& match, std::int64_t width)
      : shape{.batch = match.batch,
              .width = width,
              .normalised = match.tokens - match.merged,
              .base = match.tokens,
              .branch = match.tokens,
              .x = match.tokens - match.merged,
              .dx = match.tokens - match.merged},
        maps(allocate_maps(match)) {
    const std::int64_t before = match.batch * match.tokens, after = match.batch * shape.x;
    shares = allocate<float>(before);
    base = random_values<float>(before * width);
    branch = random_values<bfloat16>(before * width);
    x = allocate<float>(after * width);
    y = allocate<bfloat16>(after * width);
    statistics = allocate<float>(2 * after);
    gamma = random_values<float>(width);
    dx = random_values<float>(after * width);
    d_base = allocate<float>(before * width);
    d_branch = allocate<bfloat16>(before * width);
    workspace =
        allocate<std::byte>(static_cast<std::int64_t>(add_norm_backward_workspace_bytes(width)));
    const auto qkv = random_values<bfloat16>(3 * before * match.heads * match.head_dim);
    TokenMatch arguments = match;
    arguments.qkv = qkv.get();
    arguments.groups = maps.groups();
    arguments.weights.shares = shares.get();
    match_tokens(arguments, nullptr);
    forward(nullptr);
    check_cuda(cudaDeviceSynchronize());
  }

  JoinGroups groups() const { return {maps.offsets.get(), maps.members.get(), shares.get()}; }
  void forward(Stream stream) const {
    add_norm_forward<float>({.shape = shape,
                             .base = base.get(),
                             .branch = branch.get(),
                             .groups = groups(),
                             .gamma = gamma.get(),
                             .beta = gamma.get(),
                             .x = x.get(),
                             .y = y.get(),
                             .statistics = statistics.get()},
                            stream);
  }
  void backward(Stream stream) const {
    add_norm_backward<float>({.shape = shape,
                              .dy = y.get(),
                              .x = x.get(),
                              .statistics = statistics.get(),
                              .gamma = gamma.get(),
                              .dx = dx.get(),
                              .groups = groups(),
                              .d_base = d_base.get(),
                              .d_branch = d_branch.get()},
                             workspace.get(), stream);
  }
};

/// Six bytes an element on the side of the single tokens, six or ten on that of the groups.
Case join_case(const TokenMatch& match, std::int64_t width, bool backward) {
  return {cat("\"op\": \"grouped_join_", backward ? "backward" : "forward",
              "\", \"batch\": ", match.batch, ", \"tokens\": ", match.tokens,
              ", \"merged\": ", match.merged, ", \"width\": ", width),
          [=] {
            const GroupedJoin join(match, width);
            const double before = static_cast<double>(match.batch * match.tokens * width);
            const double after = static_cast<double>(match.batch * join.shape.x * width);
            return Work{
                [=](Stream stream) { backward ? join.backward(stream) : join.forward(stream); },
                6.0 * before + (backward ? 10.0 : 6.0) * after};
          }};
}

TokenMatch deit_small(std::int64_t tokens) {
  return {.batch = 256, .tokens = tokens, .heads = 6, .merged = 13, .protected_tokens = 1};
}

}  // namespace

std::vector<Case> token_cases() {
  std::vector<Case> all;
  for (std::int64_t tokens = 197; tokens >= 54; tokens -= 13) {
    all.push_back(match_case(deit_small(tokens)));
  }
  for (const std::int64_t tokens : {197, 106}) {
    all.push_back(join_case(deit_small(tokens), 384, false));
    all.push_back(join_case(deit_small(tokens), 384, true));
    for (const bool backward : {false, true}) {
      all.push_back(merge_case<float>(deit_small(tokens), 384, backward));
      all.push_back(merge_case<bfloat16>(deit_small(tokens), 384, backward));
    }
  }
  return all;
}

}  // namespace ablate::kernels::bench
