#include <algorithm>

#include "methods/kernels/add_norm.h"
#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/row_teams.cuh"

namespace ablate::kernels {
namespace {

constexpr int kNormBlocksPerSm = 4;

/// What a thread adds up over the rows of its team, for its own columns.
template <typename Layout>
struct ColumnGradients {
  float gamma[Layout::kVectors][Layout::kVector] = {};
  float beta[Layout::kVectors][Layout::kVector] = {};
  float bias[Layout::kVectors][Layout::kVector] = {};
};

/// Where a row lies in the tensors, and which of them hold it.
struct BackwardRow {
  std::int64_t norm_row;                 ///< of dy and statistics
  std::int64_t x, dx, d_base, d_branch;  ///< first element
  unsigned sample;
  bool active, normalised, incoming, branch;
  int first_member = 0, end_member = 0;  ///< of its group
};

/// Rows of x: tokens of base, or groups of them.
template <bool Merges>
__host__ __device__ std::int64_t tokens_of(const AddNormShape& shape) {
  return Merges ? shape.normalised : shape.base;
}

template <bool Merges, typename R>
__device__ __forceinline__ BackwardRow backward_row(const AddNormBackward<R>& arguments,
                                                    unsigned row) {
  const AddNormShape& shape = arguments.shape;
  const auto tokens = static_cast<unsigned>(tokens_of<Merges>(shape));
  BackwardRow place;
  place.sample = row / tokens;
  const unsigned token = row % tokens;
  place.active = row < static_cast<unsigned>(shape.batch) * tokens;
  place.normalised = place.active && token < shape.normalised;
  place.incoming = place.active && arguments.dx != nullptr && token < shape.dx;
  place.branch = place.active && arguments.d_branch != nullptr && (Merges || token < shape.branch);
  place.norm_row = place.sample * shape.normalised + token;
  place.x = (place.sample * shape.x + token) * shape.width;
  place.dx = (place.sample * shape.dx + token) * shape.width;
  place.d_base = (place.sample * shape.base + (Merges ? 0 : token)) * shape.width;
  place.d_branch = (place.sample * shape.branch + (Merges ? 0 : token)) * shape.width;
  if constexpr (Merges) {
    const std::int32_t* offsets =
        arguments.groups.offsets + place.sample * (shape.normalised + 1) + token;
    place.first_member = place.active ? offsets[0] : 0;
    place.end_member = place.active ? offsets[1] : 0;
  }
  return place;
}

template <typename R>
__device__ __forceinline__ float skip_gain(const AddNormBackward<R>& arguments) {
  return arguments.skip.value * (arguments.skip.factor == nullptr ? 1.0F : *arguments.skip.factor);
}

/// Gives each member of the row's group its share of the gradients.
template <int V, typename R>
__device__ __forceinline__ void store_shares(const AddNormBackward<R>& arguments,
                                             const BackwardRow& row, int column,
                                             const float (&d_base)[V], const float (&d_branch)[V]) {
  const AddNormShape& shape = arguments.shape;
  const std::int64_t first = row.sample * shape.base;
  for (int member = row.first_member; member < row.end_member; ++member) {
    const std::int64_t token = arguments.groups.members[first + member];
    const float share = arguments.groups.shares[first + token];
    float part[V];
#pragma unroll
    for (int j = 0; j < V; ++j) part[j] = share * d_base[j];
    store(arguments.d_base + row.d_base + token * shape.width + column, part);
    if (!row.branch) continue;
#pragma unroll
    for (int j = 0; j < V; ++j) part[j] = share * d_branch[j];
    store(arguments.d_branch + row.d_branch + token * shape.width + column, part);
  }
}

/// One row: loads, the gradient of the norm, stores; adds to `sums`.
template <typename Layout, bool Merges, typename R>
__device__ __forceinline__ void differentiate_row(
    const AddNormBackward<R>& arguments, const RowTeams& teams, const BackwardRow& row,
    const float (&gamma)[Layout::kVectors][Layout::kVector], float2* scratch,
    ColumnGradients<Layout>& sums) {
  constexpr int V = Layout::kVector;
  const int width = static_cast<int>(arguments.shape.width);
  const bfloat16* dy_row = arguments.dy + row.norm_row * width;
  Packed<V, bfloat16> dy[Layout::kVectors];
  Packed<V, R> x[Layout::kVectors];
  Packed<V, R> dx[Layout::kVectors];
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    dy[i].clear();
    x[i].clear();
    dx[i].clear();
    if (row.normalised && column < width) {
      dy[i].load(dy_row + column);
      x[i].load(arguments.x + row.x + column);
    }
    if (row.incoming && column < width) dx[i].load(arguments.dx + row.dx + column);
  }
  float2 statistics = make_float2(0.0F, 0.0F);  // rstd 0: no gradient from the norm
  if (row.normalised) {
    statistics = *reinterpret_cast<const float2*>(arguments.statistics + 2 * row.norm_row);
  }
  const float scale = row.branch && arguments.scale != nullptr ? arguments.scale[row.sample] : 1.0F;

  float weighted[Layout::kVectors][V];  // dy gamma
  float xhat[Layout::kVectors][V];
  float2 sum = make_float2(0.0F, 0.0F);
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    float gradient[V];
    dy[i].unpack(gradient);
    x[i].unpack(xhat[i]);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      xhat[i][j] = (xhat[i][j] - statistics.x) * statistics.y;
      sums.gamma[i][j] = fmaf(gradient[j], xhat[i][j], sums.gamma[i][j]);
      sums.beta[i][j] += gradient[j];
      weighted[i][j] = gradient[j] * gamma[i][j];
      sum.x += weighted[i][j];
      sum.y = fmaf(weighted[i][j], xhat[i][j], sum.y);
    }
  }
  sum = team_sum<Layout>(sum, teams, scratch);
  const float mean_weighted = sum.x / static_cast<float>(width);
  const float mean_projection = sum.y / static_cast<float>(width);
  const float skip = skip_gain(arguments);
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    float total[V];
    float d_base[V];
    dx[i].unpack(total);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float centred = weighted[i][j] - mean_weighted - xhat[i][j] * mean_projection;
      total[j] = fmaf(statistics.y, centred, total[j]);
      d_base[j] = skip * total[j];
    }
    if (!row.active || column >= width) continue;
#pragma unroll
    for (int j = 0; j < V; ++j) total[j] *= scale;
    if (row.branch) {  // the shares of a group add up to 1
#pragma unroll
      for (int j = 0; j < V; ++j) sums.bias[i][j] += total[j];
    }
    if constexpr (Merges) {
      store_shares(arguments, row, column, d_base, total);
    } else {
      store(arguments.d_base + row.d_base + column, d_base);
      if (row.branch) store(arguments.d_branch + row.d_branch + column, total);
    }
  }
}

/// `partials` is (3, gridDim.x, width): of gamma, beta, bias, each only where it is wanted.
template <typename Layout, bool Merges, typename R>
__global__ void __launch_bounds__(kMaxTeamBlock, 1)
    add_norm_backward_kernel(AddNormBackward<R> arguments, RowTeams teams, float* partials) {
  extern __shared__ float team_sums[];  // (teams.rows, width)
  __shared__ float2 scratch[2][kMaxTeamWarps];
  const int width = static_cast<int>(arguments.shape.width);
  float gamma[Layout::kVectors][Layout::kVector] = {};
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    if (column < width) load(arguments.gamma + column, gamma[i]);
  }
  ColumnGradients<Layout> sums;
  const auto rows =
      static_cast<unsigned>(arguments.shape.batch * tokens_of<Merges>(arguments.shape));
  const auto chunks = static_cast<int>(ceil_div<unsigned>(rows, teams.rows));
  unsigned buffer = 0;
  // All teams of a block run as often, for the barriers of team_sum(). From the end:
  // block_from_end().
  for (int chunk = chunks - 1 - static_cast<int>(blockIdx.x); chunk >= 0;
       chunk -= static_cast<int>(gridDim.x)) {
    const unsigned first = static_cast<unsigned>(chunk) * teams.rows;
    const BackwardRow row = backward_row<Merges>(arguments, first + teams.team());
    differentiate_row<Layout, Merges>(arguments, teams, row, gamma, scratch[buffer], sums);
    buffer ^= 1U;  // a thread two rows ahead has passed a barrier behind the last reader
  }
  const std::int64_t slices = gridDim.x;
  float* mine = partials + static_cast<std::int64_t>(blockIdx.x) * width;
  if (arguments.d_gamma != nullptr) {
    write_team_sums<Layout>(sums.gamma, teams, width, team_sums, mine);
  }
  if (arguments.d_beta != nullptr) {
    write_team_sums<Layout>(sums.beta, teams, width, team_sums, mine + slices * width);
  }
  if (arguments.d_bias != nullptr) {
    write_team_sums<Layout>(sums.bias, teams, width, team_sums, mine + 2 * slices * width);
  }
}

template <typename R>
void check_add_norm_backward(const AddNormBackward<R>& arguments) {
  const AddNormShape& shape = arguments.shape;
  ABLATE_CHECK(shape.base >= shape.normalised && shape.x >= shape.normalised,
               "add_norm: base and x hold ", shape.base, " and ", shape.x, " tokens of ",
               shape.normalised);
  ABLATE_CHECK(arguments.groups.offsets == nullptr ||
                   ((arguments.d_branch == nullptr || shape.branch == shape.base) &&
                    shape.dx <= shape.normalised),
               "add_norm: groups are made of all tokens of base and branch");
  ABLATE_CHECK(shape.base >= shape.branch && shape.base >= shape.dx,
               "add_norm: base must hold all tokens of branch and dx");
  ABLATE_CHECK(static_cast<const void*>(arguments.d_base) != arguments.dx || shape.base == shape.dx,
               "add_norm: d_base in the place of dx needs equal tokens");
  ABLATE_CHECK(arguments.d_bias == nullptr || arguments.d_branch != nullptr,
               "add_norm: d_bias needs d_branch");
  // Up to half of the range, so that the row behind the last one of a grid is no wrapped number.
  ABLATE_CHECK(shape.batch * shape.base < (std::int64_t{1} << 31),
               "add_norm: up to 2^31 - 1 rows are supported");
  ABLATE_CHECK(all_aligned(8, arguments.statistics),
               "add_norm: statistics must be aligned to 8 bytes");
  ABLATE_CHECK(
      shape.width % 8 != 0 || all_aligned(16, arguments.dy, arguments.x, arguments.gamma,
                                          arguments.dx, arguments.d_base, arguments.d_branch),
      "add_norm: tensors must be aligned to 16 bytes");
}

template <typename Layout, bool Merges, typename R>
int resident_blocks(const RowTeams& teams, std::size_t shared_bytes) {
  int blocks = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, add_norm_backward_kernel<Layout, Merges, R>, teams.block, shared_bytes));
  return std::clamp(blocks, 1, kNormBlocksPerSm) * multiprocessor_count();
}

/// Slices of partial sums that it leaves.
template <bool Merges, typename R>
std::int64_t launch_backward(const AddNormBackward<R>& arguments, float* partials, Stream stream) {
  const std::int64_t width = arguments.shape.width;
  const std::int64_t rows = arguments.shape.batch * tokens_of<Merges>(arguments.shape);
  std::int64_t blocks = 0;
  with_row_layout<R>(width, [&]<typename Layout>(Layout, RowTeams teams) {
    const auto shared = static_cast<std::size_t>(teams.rows * width) * sizeof(float);
    blocks = std::min<std::int64_t>(ceil_div<std::int64_t>(rows, teams.rows),
                                    resident_blocks<Layout, Merges, R>(teams, shared));
    add_norm_backward_kernel<Layout, Merges>
        <<<static_cast<unsigned>(blocks), teams.block, shared, stream>>>(arguments, teams,
                                                                         partials);
  });
  check_launch();
  return blocks;
}

}  // namespace

std::size_t add_norm_backward_workspace_bytes(std::int64_t width) {
  return std::size_t{3} * kNormBlocksPerSm * static_cast<std::size_t>(multiprocessor_count()) *
         static_cast<std::size_t>(width) * sizeof(float);
}

template <typename R>
void add_norm_backward(const AddNormBackward<R>& arguments, void* workspace, Stream stream) {
  check_add_norm_backward(arguments);
  if (arguments.shape.batch * arguments.shape.base == 0) return;
  auto* partials = static_cast<float*>(workspace);
  const std::int64_t slices = arguments.groups.offsets == nullptr
                                  ? launch_backward<false>(arguments, partials, stream)
                                  : launch_backward<true>(arguments, partials, stream);
  finish_column_sums({.partials = partials,
                      .slices = slices,
                      .width = arguments.shape.width,
                      .outputs = {arguments.d_gamma, arguments.d_beta, arguments.d_bias}},
                     stream);
}

template void add_norm_backward(const AddNormBackward<float>&, void*, Stream);
template void add_norm_backward(const AddNormBackward<bfloat16>&, void*, Stream);

}  // namespace ablate::kernels
