#include "methods/kernels/cuda_check.h"
#include "methods/kernels/token_groups.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

__global__ void __launch_bounds__(kGroupThreads) group_kernel(TokenGrouping a) {
  __shared__ int positions[kMostGroupedTokens];
  const int tokens = static_cast<int>(a.tokens);
  const std::int64_t image = blockIdx.x;
  for (int n = static_cast<int>(threadIdx.x); n < tokens; n += kGroupThreads) {
    positions[n] = a.groups.positions[image * tokens + n];
  }
  __syncthreads();
  const int new_tokens = static_cast<int>(a.new_tokens);
  std::int32_t* offsets = a.groups.offsets + image * (new_tokens + 1);
  std::int32_t* members = a.groups.members + image * tokens;
  write_groups(positions, tokens, new_tokens, offsets, members);
  write_weights(a.weights, image, tokens, new_tokens, offsets, members);
}

__global__ void __launch_bounds__(256) chain_kernel(PositionChain a) {
  const std::int64_t index = blockIdx.x * std::int64_t{256} + threadIdx.x;
  if (index >= a.batch * a.tokens) return;
  const std::int64_t image = index / a.tokens;
  a.to[index] = a.second[image * a.middle_tokens + a.first[index]];
}

}  // namespace

void group_tokens(const TokenGrouping& arguments, Stream stream) {
  ABLATE_CHECK(arguments.tokens <= kMostGroupedTokens && arguments.new_tokens <= arguments.tokens,
               "group_tokens: ", arguments.tokens, " tokens in ", arguments.new_tokens, " groups");
  if (arguments.batch == 0 || arguments.tokens == 0) return;
  group_kernel<<<static_cast<unsigned>(arguments.batch), kGroupThreads, 0, stream>>>(arguments);
  check_launch();
}

void chain_positions(const PositionChain& arguments, Stream stream) {
  const std::int64_t count = arguments.batch * arguments.tokens;
  if (count == 0) return;
  chain_kernel<<<static_cast<unsigned>(ceil_div<std::int64_t>(count, 256)), 256, 0, stream>>>(
      arguments);
  check_launch();
}

}  // namespace ablate::kernels
