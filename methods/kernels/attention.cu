#include "methods/kernels/attention_device.cuh"

namespace ablate::kernels {
namespace {

constexpr int kMostForwardWarps = 8;

/// 16 queries on their way over the keys: softmax with a running maximum (Milakov and Gimelshein,
/// "Online normalizer calculation for softmax", 2018). Lane l looks after rows l / 4 and that + 8.
template <int D>
struct SoftmaxRows {
  typename Tile<D>::Operand queries;
  typename Tile<D>::Sums sums = {};  ///< of exp(score - top) * value
  // Finite, so that a difference to it is never NaN.
  float top[2] = {-1e30F, -1e30F};  ///< maximum so far
  float total[2] = {};              ///< this lane's part of the sum of exp(score - top)
};

/// What the steps need besides the rows; addresses include the lane's offset.
struct KeyBlock {
  std::uint32_t keys;
  std::uint32_t values;
  const float* bias;  ///< of these keys, in shared memory
  int valid;          ///< keys that exist, from the first of the block on
};

/// Scores with bias in units of log 2, or raw products without. Keys that do not exist get
/// -infinity: by their bias, or in the last step.
template <int Steps, bool kBias, bool kLast>
__device__ __forceinline__ void finish_scores(float (&scores)[Steps][2][4], const KeyBlock& block,
                                              float factor) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2 * Steps; ++i) {
    float(&s)[4] = scores[i / 2][i % 2];
    if constexpr (kBias) {
      const float2 bias = *reinterpret_cast<const float2*>(block.bias + 8 * i + column);
      s[0] = fmaf(s[0], factor, bias.x);
      s[1] = fmaf(s[1], factor, bias.y);
      s[2] = fmaf(s[2], factor, bias.x);
      s[3] = fmaf(s[3], factor, bias.y);
    } else if constexpr (kLast) {
      if (8 * i + column >= block.valid) s[0] = s[2] = -INFINITY;
      if (8 * i + column + 1 >= block.valid) s[1] = s[3] = -INFINITY;
    }
  }
}

/// Goes on by 16 * Steps keys. `factor` takes scores to units of log 2.
template <int D, int Steps, bool kBias, bool kLast>
__device__ __forceinline__ void attend(SoftmaxRows<D>& rows, const KeyBlock& block, float factor) {
  float scores[Steps][2][4] = {};
#pragma unroll
  for (int step = 0; step < Steps; ++step) {
    multiply_rows<D>(scores[step], rows.queries, block.keys + step * Tile<D>::kBytes);
  }
  finish_scores<Steps, kBias, kLast>(scores, block, factor);
  if (kBias) factor = 1.0F;
  float top[2] = {rows.top[0], rows.top[1]};
#pragma unroll
  for (int i = 0; i < 2 * Steps; ++i) {
    const float(&s)[4] = scores[i / 2][i % 2];
    top[0] = fmaxf(top[0], fmaxf(s[0], s[1]));
    top[1] = fmaxf(top[1], fmaxf(s[2], s[3]));
  }
  float kept[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    top[half] = warp_max<4>(top[half]);
    kept[half] = power_of_two((rows.top[half] - top[half]) * factor);
    rows.top[half] = top[half];
    rows.total[half] *= kept[half];
    top[half] *= factor;
  }
  if (__any_sync(0xffffffffU, kept[0] != 1.0F || kept[1] != 1.0F)) {
#pragma unroll
    for (int group = 0; group < Tile<D>::kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rows.sums[group][i] *= kept[i / 2];
    }
  }
#pragma unroll
  for (int step = 0; step < Steps; ++step) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& s = scores[step][i / 4][i % 4];
      s = power_of_two(fmaf(s, factor, -top[i % 4 / 2]));
      rows.total[i % 4 / 2] += s;
    }
    std::uint32_t weights[4];
    to_operand(weights, scores[step]);
    multiply_columns<D>(rows.sums, weights, block.values + step * Tile<D>::kBytes);
  }
}

/// All keys of a block, `tiles` times 16.
template <int D, bool kBias>
__device__ __forceinline__ void attend_block(SoftmaxRows<D>& rows, KeyBlock block, int tiles,
                                             float factor) {
  for (; tiles > 2; tiles -= 2) {
    attend<D, 2, kBias, false>(rows, block, factor);
    block.keys += 2 * Tile<D>::kBytes;
    block.values += 2 * Tile<D>::kBytes;
    block.bias += 32;
    block.valid -= 32;
  }
  if (tiles == 2) {
    attend<D, 2, kBias, true>(rows, block, factor);
  } else {
    attend<D, 1, kBias, true>(rows, block, factor);
  }
}

/// Writes out and log-sum-exp of the 16 queries from `query` on.
template <int D, bool kBias>
__device__ __forceinline__ void write_rows(const Attention& a, const HeadPlace<D>& place,
                                           const SoftmaxRows<D>& rows, int query, float factor) {
  const int valid = static_cast<int>(a.shape.tokens) - query;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float total[2] = {warp_sum<4>(rows.total[0]), warp_sum<4>(rows.total[1])};
  store_rows<D>(a.out + place.unpacked + query * place.part, place.part, valid, rows.sums,
                1.0F / total[0], 1.0F / total[1]);
  if (a.log_sum_exp == nullptr || lane % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    if (row < valid) {
      a.log_sum_exp[place.row + query + row] =
          (rows.top[half] * (kBias ? 1.0F : factor) + log2f(total[half])) * kLn2;
    }
  }
}

/// A block a head: all its keys and values stay in shared memory, each warp takes every
/// (warps)-th 16 queries.
template <int D, bool kBias>
__global__ void __launch_bounds__(kMostForwardWarps * 32, kWarpsPerSm / kMostForwardWarps)
    attention_resident_kernel(Attention a, float factor) {
  extern __shared__ __align__(128) unsigned char memory[];
  const int tokens = static_cast<int>(a.shape.tokens);
  const int tiles = row_tiles(tokens);
  const HeadPlace<D> place(a.shape, blockIdx.x);
  const bfloat16* queries = a.qkv + place.packed;
  const std::uint32_t keys = shared_address(memory);
  const std::uint32_t values = keys + tiles * Tile<D>::kBytes;
  auto* bias = reinterpret_cast<float*>(memory + 2 * tiles * Tile<D>::kBytes);

  start_row_copies<D, 2>(keys, queries + place.part, place.packed_stride, tokens, tiles * 16,
                         place.part);
  commit_copies();
  if (kBias) load_key_bias(bias, a.key_bias + place.image * tokens, tokens, tiles * 16);
  const int warps = static_cast<int>(blockDim.x) / 32;
  int tile = warp_index();
  PendingOperand<D> pending;
  pending.start(queries + tile * 16 * place.packed_stride, place.packed_stride, tokens - tile * 16);
  wait_copies<0>();
  __syncthreads();

  for (; tile < tiles; tile += warps) {
    SoftmaxRows<D> rows;
    pending.finish(rows.queries);
    const int next = (tile + warps) * 16;
    pending.start(queries + next * place.packed_stride, place.packed_stride, tokens - next);
    const KeyBlock block{keys + Tile<D>::row_lane(), values + Tile<D>::column_lane(), bias, tokens};
    attend_block<D, kBias>(rows, block, tiles, factor);
    write_rows<D, kBias>(a, place, rows, tile * 16, factor);
  }
}

/// For long sequences: a block takes 16 queries a warp; keys and values pass through two buffers.
template <int D, bool kBias>
__global__ void __launch_bounds__(kStreamedWarps * 32, kWarpsPerSm / kStreamedWarps)
    attention_streamed_kernel(Attention a, float factor) {
  constexpr int kBytes = kStreamedRows * Tile<D>::kRowBytes;
  __shared__ __align__(128) unsigned char memory[4 * kBytes];
  __shared__ __align__(8) float bias[2][kStreamedRows];
  const int tokens = static_cast<int>(a.shape.tokens);
  const HeadPlace<D> place(a.shape, blockIdx.x);
  const bfloat16* queries = a.qkv + place.packed;
  const int query = (static_cast<int>(blockIdx.y) * kStreamedWarps + warp_index()) * 16;
  const std::uint32_t buffers = shared_address(memory);

  const auto start_block = [&](int first) {
    const int buffer = first / kStreamedRows % 2;
    const int valid = min(tokens - first, kStreamedRows);
    const bfloat16* keys = queries + place.part + first * place.packed_stride;
    const std::uint32_t to = buffers + buffer * 2 * kBytes;
    start_row_copies<D, 2>(to, keys, place.packed_stride, valid, kStreamedRows, place.part);
    if (kBias) {
      load_key_bias(bias[buffer], a.key_bias + place.image * tokens + first, valid, kStreamedRows);
    }
  };
  start_block(0);
  commit_copies();
  PendingOperand<D> pending;
  pending.start(queries + query * place.packed_stride, place.packed_stride, tokens - query);
  SoftmaxRows<D> rows;
  pending.finish(rows.queries);
  for (int first = 0; first < tokens; first += kStreamedRows) {
    if (first + kStreamedRows < tokens) start_block(first + kStreamedRows);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int buffer = first / kStreamedRows % 2;
    const std::uint32_t keys = buffers + buffer * 2 * kBytes;
    const KeyBlock block{keys + Tile<D>::row_lane(), keys + kBytes + Tile<D>::column_lane(),
                         bias[buffer], tokens - first};
    attend_block<D, kBias>(rows, block, row_tiles(min(tokens - first, kStreamedRows)), factor);
    __syncthreads();
  }
  write_rows<D, kBias>(a, place, rows, query, factor);
}

template <int D, bool kBias>
void launch_attention(const Attention& a, Stream stream) {
  const int tiles = row_tiles(static_cast<int>(a.shape.tokens));
  const auto heads = static_cast<unsigned>(a.shape.batch * a.shape.heads);
  const float factor = score_factor(D);
  const std::size_t bytes = static_cast<std::size_t>(tiles) * (2 * Tile<D>::kBytes + 16 * 4);
  const int blocks = blocks_by_memory(bytes);
  if (blocks >= 2) {  // loads of one head go on under the products of another
    const int warps = warps_for(tiles, blocks, 4, kMostForwardWarps);
    const auto kernel = attention_resident_kernel<D, kBias>;
    allow_shared_memory(kernel, bytes);
    kernel<<<heads, warps * 32, bytes, stream>>>(a, factor);
  } else {
    const dim3 grid(heads, static_cast<unsigned>(ceil_div(tiles, kStreamedWarps)));
    attention_streamed_kernel<D, kBias><<<grid, kStreamedWarps * 32, 0, stream>>>(a, factor);
  }
  check_launch();
}

}  // namespace

void attention(const Attention& arguments, Stream stream) {
  check_attention(arguments.shape);
  ABLATE_CHECK(is_aligned(arguments.qkv, 16) && is_aligned(arguments.out, 16),
               "attention: qkv and out must be aligned to 16 bytes");
  if (arguments.shape.batch == 0) return;
  const bool bias = arguments.key_bias != nullptr;
  if (arguments.shape.head_dim == 64) {
    bias ? launch_attention<64, true>(arguments, stream)
         : launch_attention<64, false>(arguments, stream);
  } else {
    bias ? launch_attention<32, true>(arguments, stream)
         : launch_attention<32, false>(arguments, stream);
  }
}

}  // namespace ablate::kernels
