#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/patch_embed.h"

namespace ablate::kernels {
namespace {

constexpr int kPatchThreads = 256;
constexpr int kSamplesPerThread = 4;

/// Grid (rows of patches of all images, pieces of such a row). A thread moves V neighbouring
/// pixels.
template <int V, typename T>
__global__ void __launch_bounds__(kPatchThreads) patchify_kernel(Patchify<T> arguments) {
  const auto patch = static_cast<unsigned>(arguments.patch);
  const unsigned area = patch * patch;
  const unsigned columns = static_cast<unsigned>(arguments.channels) * area;
  const unsigned grid_width = static_cast<unsigned>(arguments.width) / patch;
  const unsigned grid_height = static_cast<unsigned>(arguments.height) / patch;
  const unsigned at = (blockIdx.y * blockDim.x + threadIdx.x) * V;  // in the row of patches
  if (at >= grid_width * columns) return;
  const unsigned gx = at / columns;
  const unsigned column = at % columns;
  const unsigned channel = column / area;
  const unsigned py = column % area / patch;
  const unsigned px = column % patch;  // area and columns are multiples of patch
  const unsigned image = blockIdx.x / grid_height;
  const unsigned gy = blockIdx.x % grid_height;
  const std::int64_t from =
      ((image * arguments.channels + channel) * arguments.height + gy * patch + py) *
          arguments.width +
      gx * patch + px;
  const std::int64_t to = static_cast<std::int64_t>(blockIdx.x) * grid_width * columns + at;
  float pixels[V];
  load(arguments.images + from, pixels);
  store(arguments.patches + to, pixels);
}

template <int V, typename T>
void launch_patchify(const Patchify<T>& arguments, Stream stream) {
  const std::int64_t row = arguments.channels * arguments.patch * arguments.width / V;  // vectors
  const std::int64_t threads =
      std::min<std::int64_t>(kPatchThreads, ceil_div<std::int64_t>(row, 32) * 32);
  const dim3 grid(static_cast<unsigned>(arguments.batch * (arguments.height / arguments.patch)),
                  static_cast<unsigned>(ceil_div(row, threads)));
  patchify_kernel<V><<<grid, static_cast<unsigned>(threads), 0, stream>>>(arguments);
  check_launch();
}

/// Where V columns of the (batch, tokens * width) matrix belong.
struct TokenPlace {
  std::int64_t token;
  std::int64_t column;  ///< in the token
  std::int64_t patch;   ///< in the (batch, patches * width) matrix, for a patch
  bool is_patch;
};

__device__ __forceinline__ TokenPlace token_place(const TokenShape& shape, std::int64_t column) {
  const std::int64_t token = static_cast<unsigned>(column) / static_cast<unsigned>(shape.width);
  return {token, column - token * shape.width, column - shape.prefix * shape.width,
          token >= shape.prefix};
}

/// Grid (pieces of a sample, groups of samples).
template <int V, typename R>
__global__ void __launch_bounds__(kPatchThreads)
    assemble_tokens_kernel(AssembleTokens<R> arguments) {
  const TokenShape& shape = arguments.shape;
  const std::int64_t per_sample = (shape.prefix + shape.patches) * shape.width;
  const std::int64_t column =
      (static_cast<std::int64_t>(blockIdx.x) * kPatchThreads + threadIdx.x) * V;
  if (column >= per_sample) return;
  const TokenPlace place = token_place(shape, column);
  float position[V] = {};
  if (arguments.pos_embed != nullptr) load(arguments.pos_embed + column, position);
  float prefix[V] = {};
  if (!place.is_patch) {
    const float* token = place.token == 0 ? arguments.prefix_tokens[0] : arguments.prefix_tokens[1];
    load(token + place.column, prefix);
  }
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kSamplesPerThread;
  Packed<V, bfloat16> patches[kSamplesPerThread];
#pragma unroll
  for (int i = 0; i < kSamplesPerThread; ++i) {
    patches[i].clear();
    if (place.is_patch && first + i < shape.batch) {
      patches[i].load(arguments.patches + (first + i) * shape.patches * shape.width + place.patch);
    }
  }
#pragma unroll
  for (int i = 0; i < kSamplesPerThread; ++i) {
    if (first + i >= shape.batch) break;
    float values[V];
    patches[i].unpack(values);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      values[j] = (place.is_patch ? values[j] : prefix[j]) + position[j];
    }
    store(arguments.tokens + (first + i) * per_sample + column, values);
  }
}

/// First stage: sums over samples of the (batch, tokens * width) matrix.
template <int V, typename R>
__global__ void __launch_bounds__(kColumnThreads, kColumnBlocksPerSm)
    assemble_tokens_backward_kernel(AssembleTokensBackward<R> arguments, ColumnTiles tiles,
                                    float* partials) {
  const TokenShape& shape = arguments.shape;
  const std::int64_t per_sample = (shape.prefix + shape.patches) * shape.width;
  const ColumnPlace place = column_place<V>(tiles, per_sample);
  const TokenPlace token = token_place(shape, place.active ? place.column : 0);
  float sums[V] = {};
  const auto copy_and_add = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t sample, std::int64_t at,
                                            std::int64_t step) {
    Packed<V, R> batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) batch[i].load(arguments.d_tokens + at + i * step);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float gradient[V];
      batch[i].unpack(gradient);
#pragma unroll
      for (int j = 0; j < V; ++j) sums[j] += gradient[j];
      if (!token.is_patch) continue;
      const std::int64_t row = sample + i * place.stride;
      store(arguments.d_patches + row * shape.patches * shape.width + token.patch, gradient);
    }
  };
  for_each_row<4>(place, shape.batch, per_sample, copy_and_add);
  write_partial_sums<V>(sums, tiles, place, per_sample, partials);
}

/// Second stage: `totals` (tokens, width) receives the sums alone, for the third one.
template <typename R>
__global__ void finish_tokens_kernel(AssembleTokensBackward<R> arguments, const float* partials,
                                     int slices, float* totals) {
  const TokenShape& shape = arguments.shape;
  const std::int64_t per_sample = (shape.prefix + shape.patches) * shape.width;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kPatchThreads + threadIdx.x;
  if (column >= per_sample) return;
  float sum = 0.0F;
#pragma unroll 4
  for (int slice = 0; slice < slices; ++slice) sum += partials[slice * per_sample + column];
  totals[column] = sum;
  if (arguments.d_pos_embed != nullptr) arguments.d_pos_embed[column] += sum;
  const TokenPlace place = token_place(shape, column);
  if (place.is_patch) return;
  float* prefix = place.token == 0 ? arguments.d_prefix_tokens[0] : arguments.d_prefix_tokens[1];
  if (prefix != nullptr) prefix[place.column] += sum;
}

void check_tokens(const TokenShape& shape) {
  ABLATE_CHECK(shape.prefix >= 0 && shape.prefix <= 2, "patch_embed: ", shape.prefix,
               " prefix tokens; 0, 1 or 2 are supported");
  ABLATE_CHECK(shape.tokens() * shape.width < (std::int64_t{1} << 31),
               "patch_embed: samples of up to 2^31 - 1 elements are supported");
}

template <typename R>
ColumnTiles token_tiles(const TokenShape& shape) {
  return column_tiles(shape.batch, shape.tokens() * shape.width, column_vector<R>(shape.width));
}

unsigned token_blocks(const TokenShape& shape, std::int64_t vector) {
  return static_cast<unsigned>(
      ceil_div<std::int64_t>(shape.tokens() * shape.width, kPatchThreads * vector));
}

}  // namespace

template <typename T>
void patchify(const Patchify<T>& arguments, Stream stream) {
  const std::int64_t patch = arguments.patch;
  ABLATE_CHECK(patch >= 1 && arguments.height % patch == 0 && arguments.width % patch == 0,
               "patchify: image of ", arguments.height, " x ", arguments.width,
               " must be a multiple of the patch size ", patch);
  if (arguments.batch * arguments.channels * arguments.height * arguments.width == 0) return;
  ABLATE_CHECK(arguments.batch * arguments.height < (std::int64_t{1} << 31) &&
                   arguments.channels * patch * arguments.width < (std::int64_t{1} << 24),
               "patchify: rows of patches have up to 2^24 elements");
  if (patch % 4 != 0) {
    launch_patchify<1>(arguments, stream);
    return;
  }
  ABLATE_CHECK(all_aligned(16, arguments.images, arguments.patches),
               "patchify: images and patches must be aligned to 16 bytes");
  if (patch % 8 == 0) {
    launch_patchify<8>(arguments, stream);
  } else {
    launch_patchify<4>(arguments, stream);
  }
}

template <typename R>
void assemble_tokens(const AssembleTokens<R>& arguments, Stream stream) {
  const TokenShape& shape = arguments.shape;
  check_tokens(shape);
  if (shape.batch * shape.tokens() * shape.width == 0) return;
  const std::int64_t groups = ceil_div<std::int64_t>(shape.batch, kSamplesPerThread);
  ABLATE_CHECK(groups < 65536, "assemble_tokens: batches of up to 262140 are supported");
  const int vector = column_vector<R>(shape.width);
  const dim3 grid(token_blocks(shape, vector), static_cast<unsigned>(groups));
  if (vector > 1) {
    ABLATE_CHECK(all_aligned(16, arguments.patches, arguments.prefix_tokens[0],
                             arguments.prefix_tokens[1], arguments.pos_embed, arguments.tokens),
                 "assemble_tokens: tensors must be aligned to 16 bytes");
    assemble_tokens_kernel<kFullVector<R>><<<grid, kPatchThreads, 0, stream>>>(arguments);
  } else {
    assemble_tokens_kernel<1><<<grid, kPatchThreads, 0, stream>>>(arguments);
  }
  check_launch();
}

std::size_t assemble_tokens_backward_workspace_bytes(const TokenShape& shape) {
  const std::int64_t per_sample = shape.tokens() * shape.width;
  if (per_sample == 0) return 0;
  return partial_sums_bytes(shape.batch, per_sample, shape.width) +
         static_cast<std::size_t>(per_sample) * sizeof(float);
}

template <typename R>
void assemble_tokens_backward(const AssembleTokensBackward<R>& arguments, void* workspace,
                              Stream stream) {
  const TokenShape& shape = arguments.shape;
  check_tokens(shape);
  const std::int64_t per_sample = shape.tokens() * shape.width;
  if (shape.batch * per_sample == 0) return;
  const ColumnTiles tiles = token_tiles<R>(shape);
  auto* partials = static_cast<float*>(workspace);
  float* totals = partials + tiles.slices * per_sample;
  if (column_vector<R>(shape.width) > 1) {
    ABLATE_CHECK(all_aligned(16, arguments.d_tokens, arguments.d_patches),
                 "assemble_tokens: tensors must be aligned to 16 bytes");
    assemble_tokens_backward_kernel<kFullVector<R>>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  } else {
    assemble_tokens_backward_kernel<1>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  }
  check_launch();
  finish_tokens_kernel<<<token_blocks(shape, 1), kPatchThreads, 0, stream>>>(arguments, partials,
                                                                             tiles.slices, totals);
  check_launch();
  finish_column_sums({.partials = totals + shape.prefix * shape.width,
                      .slices = shape.patches,
                      .width = shape.width,
                      .outputs = {arguments.d_bias, nullptr, nullptr}},
                     stream);
}

template void patchify(const Patchify<float>&, Stream);
template void patchify(const Patchify<bfloat16>&, Stream);
template void assemble_tokens(const AssembleTokens<float>&, Stream);
template void assemble_tokens(const AssembleTokens<bfloat16>&, Stream);
template void assemble_tokens_backward(const AssembleTokensBackward<float>&, void*, Stream);
template void assemble_tokens_backward(const AssembleTokensBackward<bfloat16>&, void*, Stream);

}  // namespace ablate::kernels
