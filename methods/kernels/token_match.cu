#include <algorithm>

#include "methods/kernels/cuda_check.h"
#include "methods/kernels/token_groups.cuh"
#include "methods/kernels/token_similarity.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

static_assert(kMatchThreads == kGroupThreads);

/// New positions of all tokens, from the ranks of the members of A by falling score.
__device__ void place_tokens(const TokenMatch& a, const MatchMemory& memory) {
  const int a_count = static_cast<int>(a.tokens + 1) / 2;
  const int b_count = static_cast<int>(a.tokens) / 2;
  const int merged = static_cast<int>(a.merged);
  const bool distilled = a.protected_tokens == 2;
  const auto place_of_b = [&](int j) { return distilled && j == 0 ? 1 : a_count - merged + j; };
  for (int j = static_cast<int>(threadIdx.x); j < b_count; j += kMatchThreads) {
    memory.positions[2 * j + 1] = place_of_b(j);
  }
  count_for_each(
      a_count, a_count, [&](int i, int j) { return j < i && memory.ranks[j] >= merged; },
      [&](int i, int kept_before) {
        const int rank = memory.ranks[i];
        const int kept = a.protected_tokens >= 1 ? kept_before : rank - merged;
        memory.positions[2 * i] =
            rank < merged ? place_of_b(memory.partners[i]) : kept + (distilled && kept > 0 ? 1 : 0);
      });
}

template <int Lanes>
__global__ void __launch_bounds__(kMatchThreads, 2) match_kernel(TokenMatch a, MatchPlan plan) {
  extern __shared__ __align__(16) float begin[];
  const MatchMemory memory(begin, a, plan);
  const int tokens = static_cast<int>(a.tokens);
  const int new_tokens = tokens - static_cast<int>(a.merged);
  const std::int64_t image = blockIdx.x;
  if (a.merged > 0) {
    const int a_count = (tokens + 1) / 2;
    find_partners<Lanes>(a, plan, memory);
    const float* scores = memory.scores;
    count_for_each(
        a_count, a_count,
        [&](int i, int j) { return scores[j] > scores[i] || (scores[j] == scores[i] && j < i); },
        [&](int i, int rank) { memory.ranks[i] = rank; });
    __syncthreads();
    place_tokens(a, memory);
  } else {
    for (int n = static_cast<int>(threadIdx.x); n < tokens; n += kMatchThreads)
      memory.positions[n] = n;
  }
  __syncthreads();
  for (int n = static_cast<int>(threadIdx.x); n < tokens; n += kMatchThreads) {
    a.groups.positions[image * tokens + n] = memory.positions[n];
  }
  std::int32_t* offsets = a.groups.offsets + image * (new_tokens + 1);
  std::int32_t* members = a.groups.members + image * tokens;
  write_groups(memory.positions, tokens, new_tokens, offsets, members);
  write_weights(a.weights, image, tokens, new_tokens, offsets, members);
}

std::size_t match_bytes(const TokenMatch& a, const MatchPlan& plan) {
  const std::int64_t floats = std::int64_t{plan.a_rows + plan.b_rows} * plan.pitch +
                              2 * std::int64_t{plan.parts} * plan.a_rows +
                              3 * ((a.tokens + 1) / 2) + a.tokens;
  return static_cast<std::size_t>(floats) * sizeof(float);
}

/// All vectors when they fit, else fewer of A, else fewer of both.
MatchPlan plan_match(const TokenMatch& a) {
  int device = 0;
  int most = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  MatchPlan plan;
  plan.pitch = a.head_dim + 4;
  plan.a_rows = static_cast<int>(ceil_div<std::int64_t>((a.tokens + 1) / 2, kTileRows)) * kTileRows;
  plan.b_rows = static_cast<int>(ceil_div<std::int64_t>(a.tokens / 2, 8)) * 8;
  for (;;) {
    plan.parts = std::max(1, kMatchWarps * kTileRows / plan.a_rows);
    plan.bytes = match_bytes(a, plan);
    if (plan.bytes <= static_cast<std::size_t>(most)) return plan;
    if (plan.a_rows > 64) {
      plan.a_rows -= kTileRows;
    } else {
      ABLATE_CHECK(plan.b_rows > 8, "match_tokens: ", a.tokens, " tokens do not fit");
      plan.b_rows -= 8;
    }
  }
}

void check_match(const TokenMatch& a) {
  ABLATE_CHECK(a.tokens >= 1 && a.tokens <= kMostGroupedTokens, "match_tokens: ", a.tokens,
               " tokens; 1 to 4096 are supported");
  ABLATE_CHECK(a.head_dim >= 8 && a.head_dim <= 256 && a.head_dim % 8 == 0 && a.heads >= 1,
               "match_tokens: ", a.heads, " heads of ", a.head_dim,
               " channels; multiples of 8 up to 256 are supported");
  ABLATE_CHECK(a.protected_tokens >= 0 && a.protected_tokens <= 2, a.protected_tokens,
               " protected tokens");
  ABLATE_CHECK(a.merged >= 0 && a.merged <= most_merged(a.tokens, a.protected_tokens),
               "match_tokens: merge ", a.merged, " of ", a.tokens, " tokens");
  ABLATE_CHECK(is_aligned(a.qkv, 16), "match_tokens: qkv must be aligned to 16 bytes");
}

template <int Lanes>
void launch_match(const TokenMatch& a, const MatchPlan& plan, Stream stream) {
  check_cuda(cudaFuncSetAttribute(match_kernel<Lanes>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(plan.bytes)));
  check_cuda(cudaFuncSetAttribute(match_kernel<Lanes>,
                                  cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared));
  match_kernel<Lanes>
      <<<static_cast<unsigned>(a.batch), kMatchThreads, plan.bytes, stream>>>(a, plan);
  check_launch();
}

}  // namespace

void match_tokens(const TokenMatch& arguments, Stream stream) {
  check_match(arguments);
  if (arguments.batch == 0) return;
  const MatchPlan plan = plan_match(arguments);
  if (arguments.head_dim <= 32) {
    launch_match<4>(arguments, plan, stream);
  } else if (arguments.head_dim <= 64) {
    launch_match<8>(arguments, plan, stream);
  } else {
    launch_match<32>(arguments, plan, stream);
  }
}

}  // namespace ablate::kernels
