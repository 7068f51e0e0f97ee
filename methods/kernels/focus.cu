#include <algorithm>

#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/linear_attention.h"
#include "methods/kernels/row_teams.cuh"

namespace ablate::kernels {
namespace {

constexpr int kFocusBlocksPerSm = 2;

template <typename Layout>
using TeamValues = float[Layout::kVectors][Layout::kVector];

/// Calls visit(i, column) for a thread's vectors of the row.
template <typename Layout, typename Visit>
__device__ __forceinline__ void for_each_vector(const RowTeams& teams, int width,
                                                const Visit& visit) {
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    if (column < width) visit(i, column);
  }
}

/// u of a row and x itself; zeros behind the end of the row.
template <typename Layout>
__device__ __forceinline__ void load_focus_row(const Focus& a, const RowTeams& teams,
                                               const bfloat16* row, bool active,
                                               TeamValues<Layout>& x, TeamValues<Layout>& u) {
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) x[i][j] = u[i][j] = 0.0F;
  }
  if (!active) return;
  for_each_vector<Layout>(teams, static_cast<int>(a.width), [&](int i, int column) {
    float scale[Layout::kVector];
    load(row + column, x[i]);
    load(a.scale + column, scale);
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) {
      u[i][j] = ((x[i][j] < 0.0F ? 0.0F : x[i][j]) + a.eps) / scale[j];
    }
  });
}

/// Squared norms of u and of its cube, over the team's row.
template <typename Layout>
__device__ __forceinline__ float2 squared_norms(const TeamValues<Layout>& u, const RowTeams& teams,
                                                float2* scratch) {
  float2 sums = make_float2(0.0F, 0.0F);
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) {
      const float square = u[i][j] * u[i][j];
      const float cube = square * u[i][j];
      sums.x += square;
      sums.y = fmaf(cube, cube, sums.y);
    }
  }
  return team_sum<Layout>(sums, teams, scratch);
}

template <typename Layout>
__global__ void __launch_bounds__(kMaxTeamBlock, kFocusBlocksPerSm)
    focus_kernel(Focus a, RowTeams teams) {
  __shared__ float2 scratch[kMaxTeamWarps];
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * teams.rows + teams.team();
  const bool active = row < a.rows;
  TeamValues<Layout> x;
  TeamValues<Layout> u;
  load_focus_row<Layout>(a, teams, a.x + row * a.x_stride, active, x, u);
  const float2 squares = squared_norms<Layout>(u, teams, scratch);
  if (!active) return;
  const float factor = sqrtf(squares.x) / sqrtf(squares.y);
  for_each_vector<Layout>(teams, static_cast<int>(a.width), [&](int i, int column) {
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) u[i][j] *= factor * u[i][j] * u[i][j];
    store(a.y + row * a.y_stride + column, u[i]);
  });
}

/// The gradient of one row; `sums` gets what it adds to that of the scale.
template <typename Layout>
__device__ __forceinline__ void differentiate_row(const FocusBackward& b, const RowTeams& teams,
                                                  std::int64_t row, TeamValues<Layout>& sums) {
  __shared__ float2 norm_scratch[kMaxTeamWarps];
  __shared__ float along_scratch[kMaxTeamWarps];
  const Focus& a = b.forward;
  const int width = static_cast<int>(a.width);
  const bool active = row < a.rows;
  TeamValues<Layout> x;
  TeamValues<Layout> u;
  TeamValues<Layout> dy = {};
  load_focus_row<Layout>(a, teams, a.x + row * a.x_stride, active, x, u);
  float along = 0.0F;
  if (active) {
    for_each_vector<Layout>(teams, width, [&](int i, int column) {
      load(b.dy + row * b.dy_stride + column, dy[i]);
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j) {
        along = fmaf(dy[i][j], u[i][j] * u[i][j] * u[i][j], along);
      }
    });
  }
  __syncthreads();  // readers of the row before are done
  const float2 squares = squared_norms<Layout>(u, teams, norm_scratch);
  along = team_sum<Layout>(along, teams, along_scratch);
  if (!active) return;
  const float norm = sqrtf(squares.x);
  const float cube_norm = sqrtf(squares.y);
  const float share = along / squares.y;
  for_each_vector<Layout>(teams, width, [&](int i, int column) {
    float scale[Layout::kVector];
    load(a.scale + column, scale);
#pragma unroll
    for (int j = 0; j < Layout::kVector; ++j) {
      const float value = u[i][j];
      const float cube = value * value * value;
      const float du = along * value / (cube_norm * norm) +
                       3.0F * value * value * norm / cube_norm * (dy[i][j] - cube * share);
      sums[i][j] -= du * value / scale[j];
      dy[i][j] = x[i][j] > 0.0F ? du / scale[j] : 0.0F;
    }
    store(b.dx + row * b.dx_stride + column, dy[i]);
  });
}

/// `partials` is (gridDim.x, width).
template <typename Layout>
__global__ void __launch_bounds__(kMaxTeamBlock, 1)
    focus_backward_kernel(FocusBackward b, RowTeams teams, float* partials) {
  extern __shared__ float team_sums[];  // (teams.rows, width)
  const std::int64_t width = b.forward.width;
  TeamValues<Layout> sums = {};
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * teams.rows;
  // The same number of rows for all teams, since they meet at barriers.
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * teams.rows;
       first < b.forward.rows; first += step) {
    differentiate_row<Layout>(b, teams, first + teams.team(), sums);
  }
  write_team_sums<Layout>(sums, teams, static_cast<int>(width), team_sums,
                          partials + blockIdx.x * width);
}

void check_focus(const Focus& a) {
  ABLATE_CHECK(a.width % 8 != 0 || (a.x_stride % 8 == 0 && a.y_stride % 8 == 0 &&
                                    all_aligned(16, a.x, a.y, a.scale)),
               "focus: tensors must be aligned to 16 bytes, strides multiples of 8");
}

}  // namespace

void focus(const Focus& a, Stream stream) {
  check_focus(a);
  if (a.rows == 0) return;
  with_row_layout<bfloat16>(a.width, [&]<typename Layout>(Layout, RowTeams teams) {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(a.rows, teams.rows));
    focus_kernel<Layout><<<blocks, teams.block, 0, stream>>>(a, teams);
  });
  check_launch();
}

std::size_t focus_backward_workspace_bytes(std::int64_t width) {
  return std::size_t{kFocusBlocksPerSm} * static_cast<std::size_t>(multiprocessor_count()) *
         static_cast<std::size_t>(width) * sizeof(float);
}

void focus_backward(const FocusBackward& b, void* workspace, Stream stream) {
  const Focus& a = b.forward;
  check_focus(a);
  ABLATE_CHECK(a.width % 8 != 0 ||
                   (b.dy_stride % 8 == 0 && b.dx_stride % 8 == 0 && all_aligned(16, b.dy, b.dx)),
               "focus_backward: gradients must be aligned to 16 bytes, strides multiples of 8");
  if (a.rows == 0) return;
  auto* partials = static_cast<float*>(workspace);
  std::int64_t blocks = 0;
  with_row_layout<bfloat16>(a.width, [&]<typename Layout>(Layout, RowTeams teams) {
    blocks = std::min<std::int64_t>(ceil_div<std::int64_t>(a.rows, teams.rows),
                                    std::int64_t{kFocusBlocksPerSm} * multiprocessor_count());
    const auto shared = static_cast<std::size_t>(teams.rows * a.width) * sizeof(float);
    focus_backward_kernel<Layout>
        <<<static_cast<unsigned>(blocks), teams.block, shared, stream>>>(b, teams, partials);
  });
  check_launch();
  finish_column_sums({.partials = partials,
                      .slices = blocks,
                      .width = a.width,
                      .outputs = {b.d_scale, nullptr, nullptr}},
                     stream);
}

}  // namespace ablate::kernels
