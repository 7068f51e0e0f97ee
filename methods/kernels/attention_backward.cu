#include <array>

#include "methods/kernels/attention_resident.cuh"
#include "methods/kernels/column_reduction.cuh"

namespace ablate::kernels {
namespace {

/// A block a head, everything in shared memory.
template <int D, bool kBias, bool kExchange>
__global__ void __launch_bounds__((kExchange ? kMostExchangedTiles : kMostResidentWarps) * 32,
                                  kExchange ? 2 : 1)
    attention_backward_kernel(const __grid_constant__ ResidentParameters p) {
  extern __shared__ __align__(128) unsigned char begin[];
  const int tokens = static_cast<int>(p.a.shape.tokens);
  const int tiles = row_tiles(tokens);
  const HeadPlace<D> place(p.a.shape, blockIdx.x);
  const ResidentMemory<D> memory{begin, tiles};
  start_row_copies<D, 3>(memory.part(0), p.a.qkv + place.packed, place.packed_stride, tokens,
                         tiles * 16, place.part);
  start_row_copies<D>(memory.part(3), p.a.grad_out + place.unpacked, place.part, tokens,
                      tiles * 16);
  commit_copies();
  if (kBias) {
    load_key_bias(memory.bias(), p.a.key_bias + place.image * tokens, tokens, tiles * 16);
  }
  load_log_sums<D>(p.a, place, memory);
  write_deltas<D>(p.a, place, memory);
  __syncthreads();

  BiasTotals<D> totals;
  const int warp = warp_index();
  if constexpr (kExchange) {
    key_task<D, kBias, true>(p, place, memory, warp, totals);
    __syncthreads();
    query_task<D, kBias, true>(p, place, memory, warp, totals);
  } else {
    for (int i = p.schedule.first[warp]; i < p.schedule.first[warp + 1]; ++i) {
      const int task = p.schedule.task[i];
      if (task < tiles) {
        key_task<D, kBias, false>(p, place, memory, task, totals);
      } else {
        query_task<D, kBias, false>(p, place, memory, task - tiles, totals);
      }
    }
  }
  if (p.partials != nullptr) write_partials<D>(p, place, memory, totals);
}

/// Longest tasks first, each to the warp that has least to do.
Schedule make_schedule(int tiles, int warps) {
  constexpr int kKeyCost = 4, kQueryCost = 3;  // in products of 16 x 16 x d
  std::array<int, kMostResidentWarps> load{};
  std::array<std::uint8_t, 2 * kMostResidentTiles> owner{};
  for (int task = 0; task < 2 * tiles; ++task) {
    const auto idlest = std::min_element(load.begin(), load.begin() + warps);
    *idlest += task < tiles ? kKeyCost : kQueryCost;
    owner[static_cast<std::size_t>(task)] = static_cast<std::uint8_t>(idlest - load.begin());
  }
  Schedule schedule;
  std::size_t next = 0;
  for (int warp = 0; warp < warps; ++warp) {
    for (int task = 0; task < 2 * tiles; ++task) {
      if (owner[static_cast<std::size_t>(task)] == warp) {
        schedule.task[next++] = static_cast<std::uint8_t>(task);
      }
    }
    schedule.first[static_cast<std::size_t>(warp) + 1] = static_cast<std::uint8_t>(next);
  }
  return schedule;
}

struct ResidentPlan {
  int tiles = 0;
  int warps = 0;
  bool exchange = false;
  std::size_t bytes = 0;  ///< of shared memory
};

/// No warps where a head does not fit into shared memory.
template <int D>
ResidentPlan resident_plan(std::int64_t tokens) {
  ResidentPlan plan;
  if (tokens > 16 * kMostResidentTiles) return plan;
  plan.tiles = row_tiles(static_cast<int>(tokens));
  plan.exchange = plan.tiles <= kMostExchangedTiles;
  plan.bytes = ResidentMemory<D>::bytes(plan.tiles, plan.exchange);
  const int blocks = blocks_by_memory(plan.bytes);
  if (blocks == 0) return plan;
  plan.warps =
      plan.exchange ? plan.tiles : std::min(kMostResidentWarps, kWarpsPerSm / std::min(blocks, 4));
  return plan;
}

ResidentPlan resident_plan(const AttentionShape& shape) {
  return shape.head_dim == 64 ? resident_plan<64>(shape.tokens) : resident_plan<32>(shape.tokens);
}

std::int64_t bias_slices(const AttentionShape& shape, const ResidentPlan& plan) {
  return plan.warps > 0 ? shape.batch : streamed_bias_slices(shape);
}

/// Deltas of the streamed form, which come first in the work space.
std::size_t delta_bytes(const AttentionShape& shape, const ResidentPlan& plan) {
  if (plan.warps > 0) return 0;
  const auto rows = static_cast<std::size_t>(shape.batch * shape.heads * shape.tokens);
  return ceil_div<std::size_t>(rows * sizeof(float), 16) * 16;
}

template <int D, bool kBias, bool kExchange>
void launch_resident(const ResidentParameters& parameters, const ResidentPlan& plan,
                     Stream stream) {
  const AttentionShape& shape = parameters.a.shape;
  const auto kernel = attention_backward_kernel<D, kBias, kExchange>;
  allow_shared_memory(kernel, plan.bytes);
  kernel<<<static_cast<unsigned>(shape.batch * shape.heads), plan.warps * 32, plan.bytes, stream>>>(
      parameters);
  check_launch();
}

template <int D, bool kBias>
void launch_resident(const ResidentParameters& parameters, const ResidentPlan& plan,
                     Stream stream) {
  plan.exchange ? launch_resident<D, kBias, true>(parameters, plan, stream)
                : launch_resident<D, kBias, false>(parameters, plan, stream);
}

template <int D>
void launch_resident(const AttentionBackward& a, const ResidentPlan& plan, float* partials,
                     Stream stream) {
  ResidentParameters parameters{.a = a,
                                .partials = partials,
                                .factor = score_factor(D),
                                .scale = 1.0F / std::sqrt(static_cast<float>(D))};
  if (!plan.exchange) parameters.schedule = make_schedule(plan.tiles, plan.warps);
  a.key_bias != nullptr ? launch_resident<D, true>(parameters, plan, stream)
                        : launch_resident<D, false>(parameters, plan, stream);
}

}  // namespace

std::size_t attention_backward_workspace_bytes(const AttentionShape& shape, bool bias) {
  check_attention(shape);
  const ResidentPlan plan = resident_plan(shape);
  const auto columns = static_cast<std::size_t>(3 * shape.heads * shape.head_dim);
  const auto slices = static_cast<std::size_t>(bias ? bias_slices(shape, plan) : 0);
  return delta_bytes(shape, plan) + slices * columns * sizeof(float);
}

void attention_backward(const AttentionBackward& arguments, void* workspace, Stream stream) {
  const AttentionShape& shape = arguments.shape;
  check_attention(shape);
  ABLATE_CHECK(is_aligned(arguments.qkv, 16) && is_aligned(arguments.out, 16) &&
                   is_aligned(arguments.grad_out, 16) && is_aligned(arguments.grad_qkv, 16),
               "attention_backward: qkv, out and their gradients must be aligned to 16 bytes");
  if (shape.batch == 0) return;
  const ResidentPlan plan = resident_plan(shape);
  const bool bias = arguments.qkv_bias_gradient != nullptr;
  auto* deltas = static_cast<float*>(workspace);
  float* partials = bias ? deltas + delta_bytes(shape, plan) / sizeof(float) : nullptr;
  if (plan.warps == 0) {
    attention_backward_streamed(arguments, deltas, partials, stream);
  } else if (shape.head_dim == 64) {
    launch_resident<64>(arguments, plan, partials, stream);
  } else {
    launch_resident<32>(arguments, plan, partials, stream);
  }
  if (!bias) return;
  finish_column_sums({.partials = partials,
                      .slices = bias_slices(shape, plan),
                      .width = 3 * shape.heads * shape.head_dim,
                      .outputs = {arguments.qkv_bias_gradient, nullptr, nullptr}},
                     stream);
}

}  // namespace ablate::kernels
