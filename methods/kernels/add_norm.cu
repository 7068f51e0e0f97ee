#include "methods/kernels/add_norm.h"
#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/row_teams.cuh"

namespace ablate::kernels {
namespace {

/// The row of base plus branch; zeros behind its end.
template <typename Layout, typename R>
__device__ __forceinline__ void join_row(const AddNormForward<R>& arguments, const RowTeams& teams,
                                         unsigned sample, unsigned token, bool active,
                                         float (&x)[Layout::kVectors][Layout::kVector]) {
  constexpr int V = Layout::kVector;
  const AddNormShape& shape = arguments.shape;
  const R* base_row = arguments.base + (sample * shape.base + token) * shape.width;
  const bfloat16* branch_row = arguments.branch + (sample * shape.branch + token) * shape.width;
  const bool has_branch = arguments.branch != nullptr;
  Packed<V, R> base[Layout::kVectors];
  Packed<V, bfloat16> branch[Layout::kVectors];
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    base[i].clear();
    branch[i].clear();
    if (active && column < shape.width) base[i].load(base_row + column);
    if (has_branch && active && column < shape.width) branch[i].load(branch_row + column);
  }
  const float skip =
      arguments.skip.value * (arguments.skip.factor == nullptr ? 1.0F : *arguments.skip.factor);
  const float scale =
      active && has_branch && arguments.scale != nullptr ? arguments.scale[sample] : 1.0F;
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    float added[V];
    base[i].unpack(x[i]);
    branch[i].unpack(added);
#pragma unroll
    for (int j = 0; j < V; ++j) x[i][j] = fmaf(scale, added[j], skip * x[i][j]);
  }
}

/// The mean of the joined rows of a group.
template <typename Layout, typename R>
__device__ __forceinline__ void merge_rows(const AddNormForward<R>& arguments,
                                           const RowTeams& teams, unsigned sample, unsigned group,
                                           bool active,
                                           float (&x)[Layout::kVectors][Layout::kVector]) {
  const AddNormShape& shape = arguments.shape;
  const std::int64_t first = sample * shape.base;
  const std::int32_t* offsets = arguments.groups.offsets + sample * (shape.normalised + 1) + group;
  const int begin = active ? offsets[0] : 0;
  const int end = active ? offsets[1] : 0;
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) x[i][j] = 0.0F;
  }
  for (int member = begin; member < end; ++member) {
    const int token = arguments.groups.members[first + member];
    const float share = arguments.groups.shares[first + token];
    float row[Layout::kVectors][Layout::kVector];
    join_row<Layout>(arguments, teams, sample, static_cast<unsigned>(token), true, row);
#pragma unroll
    for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j) x[i][j] = fmaf(share, row[i][j], x[i][j]);
    }
  }
}

/// Mean and 1 / sqrt(variance + eps) of the team's row.
template <typename Layout>
__device__ __forceinline__ float2
row_statistics(const float (&x)[Layout::kVectors][Layout::kVector], const RowTeams& teams,
               int width, float eps) {
  __shared__ float scratch[2][kMaxTeamWarps];
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) sum += x[i][j];
  }
  const float count = static_cast<float>(width);
  const float mean = team_sum<Layout>(sum, teams, scratch[0]) / count;
  float squares = 0.0F;
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    if (teams.column<Layout>(i) >= width) continue;
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) {
      const float centred = x[i][j] - mean;
      squares = fmaf(centred, centred, squares);
    }
  }
  const float variance = team_sum<Layout>(squares, teams, scratch[1]) / count;
  return make_float2(mean, rsqrtf(variance + eps));
}

template <typename Layout, bool Merges, typename R>
__global__ void __launch_bounds__(kMaxTeamBlock, 2)
    add_norm_forward_kernel(AddNormForward<R> arguments, RowTeams teams) {
  constexpr int V = Layout::kVector;
  const AddNormShape& shape = arguments.shape;
  const int width = static_cast<int>(shape.width);
  const auto tokens = static_cast<unsigned>(shape.normalised);
  const unsigned row = block_from_end() * teams.rows + teams.team();
  const bool active = row < static_cast<unsigned>(shape.batch) * tokens;
  const unsigned sample = row / tokens;
  const unsigned token = row % tokens;

  float x[Layout::kVectors][V];
  if constexpr (Merges) {
    merge_rows<Layout>(arguments, teams, sample, token, active, x);
  } else {
    join_row<Layout>(arguments, teams, sample, token, active, x);
  }
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < V; ++j) x[i][j] = rounded_to<R>(x[i][j]);
  }
  const float2 statistics = row_statistics<Layout>(x, teams, width, arguments.eps);
  if (!active) return;
  if (arguments.statistics != nullptr && teams.lane() == 0) {
    *reinterpret_cast<float2*>(arguments.statistics + 2 * static_cast<std::int64_t>(row)) =
        statistics;
  }
  R* x_row = arguments.x + (sample * shape.x + token) * shape.width;
  bfloat16* y_row = arguments.y + row * shape.width;
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    if (column >= width) continue;
    if (arguments.x != nullptr) store(x_row + column, x[i]);
    float gamma[V];
    float beta[V];
    load(arguments.gamma + column, gamma);
    load(arguments.beta + column, beta);
    float y[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      y[j] = fmaf((x[i][j] - statistics.x) * statistics.y, gamma[j], beta[j]);
    }
    store(y_row + column, y);
  }
}

template <typename R>
void check_add_norm_forward(const AddNormForward<R>& arguments) {
  const AddNormShape& shape = arguments.shape;
  ABLATE_CHECK(shape.base >= shape.normalised, "add_norm: base holds ", shape.base, " tokens of ",
               shape.normalised);
  ABLATE_CHECK(arguments.branch == nullptr || shape.branch >= shape.normalised,
               "add_norm: branch holds ", shape.branch, " tokens of ", shape.normalised);
  ABLATE_CHECK(arguments.x == nullptr || shape.x >= shape.normalised, "add_norm: x holds ", shape.x,
               " tokens of ", shape.normalised);
  ABLATE_CHECK(shape.batch * shape.normalised < (std::int64_t{1} << 31),
               "add_norm: up to 2^31 - 1 rows are supported");
  ABLATE_CHECK(all_aligned(8, arguments.statistics),
               "add_norm: statistics must be aligned to 8 bytes");
  ABLATE_CHECK(arguments.groups.offsets == nullptr ||
                   ((arguments.branch == nullptr || shape.branch == shape.base) &&
                    static_cast<const void*>(arguments.x) != arguments.base),
               "add_norm: groups are made of all tokens of base and branch, into another tensor");
  ABLATE_CHECK(
      shape.width % 8 != 0 || all_aligned(16, arguments.base, arguments.branch, arguments.gamma,
                                          arguments.beta, arguments.x, arguments.y),
      "add_norm: tensors must be aligned to 16 bytes");
}

}  // namespace

template <typename R>
void add_norm_forward(const AddNormForward<R>& arguments, Stream stream) {
  check_add_norm_forward(arguments);
  const std::int64_t rows = arguments.shape.batch * arguments.shape.normalised;
  if (rows == 0) return;
  with_row_layout<R>(arguments.shape.width, [&]<typename Layout>(Layout, RowTeams teams) {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(rows, teams.rows));
    if (arguments.groups.offsets == nullptr) {
      add_norm_forward_kernel<Layout, false><<<blocks, teams.block, 0, stream>>>(arguments, teams);
    } else {
      add_norm_forward_kernel<Layout, true><<<blocks, teams.block, 0, stream>>>(arguments, teams);
    }
  });
  check_launch();
}

template void add_norm_forward(const AddNormForward<float>&, Stream);
template void add_norm_forward(const AddNormForward<bfloat16>&, Stream);

}  // namespace ablate::kernels
