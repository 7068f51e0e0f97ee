#include "methods/kernels/batch_norm_pool.h"

#include <cmath>
#include <limits>

namespace ablate::kernels::reference {
namespace {

/// Calls visit(image, y, x, channel) for all elements of a map.
template <typename Visit>
void for_each_element(const PoolShape& shape, std::int64_t height, std::int64_t width,
                      const Visit& visit) {
  for (std::int64_t image = 0; image < shape.batch; ++image) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        for (std::int64_t c = 0; c < shape.channels; ++c) visit(image, y, x, c);
      }
    }
  }
}

std::int64_t table_of(const PoolShape& shape, std::int64_t image, std::int64_t channel) {
  return image / (shape.batch / shape.groups) * shape.channels + channel;
}

}  // namespace

void batch_norm_pool(const BatchNormPool& a) {
  const PoolShape& s = a.shape;
  const std::int64_t height = PoolShape::pooled(s.height), width = PoolShape::pooled(s.width);
  for_each_element(s, height, width, [&](auto image, auto row, auto column, auto channel) {
    const std::int64_t table = table_of(s, image, channel);
    const std::int64_t to = ((image * height + row) * width + column) * s.channels + channel;
    float best = -std::numeric_limits<float>::infinity();
    for (int tap = 0; tap < 9; ++tap) {
      const std::int64_t y = 2 * row - 1 + tap / 3, x = 2 * column - 1 + tap % 3;
      if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
      const bfloat16 input = a.x[((image * s.height + y) * s.width + x) * s.channels + channel];
      const float value = std::fma(to_float(input), a.tables.scale[table], a.tables.shift[table]);
      if (!(value > best) && !std::isnan(value)) continue;
      best = value;
      if (a.selected != nullptr) a.selected[to] = input;
      if (a.taps != nullptr) a.taps[to] = static_cast<std::uint8_t>(tap);
    }
    a.y[to] = from_float<bfloat16>(best < 0.0F ? 0.0F : best);
  });
}

void batch_norm_pool_input_gradient(const BatchNormPoolInputGradient& a) {
  const PoolShape& s = a.shape;
  const std::int64_t height = PoolShape::pooled(s.height), width = PoolShape::pooled(s.width);
  for_each_element(s, s.height, s.width, [&](auto image, auto y, auto x, auto channel) {
    const std::int64_t at = ((image * s.height + y) * s.width + x) * s.channels + channel;
    const std::int64_t table = table_of(s, image, channel);
    double g = 0.0;
    for (int tap = 8; tap >= 0; --tap) {
      const std::int64_t row = y + 1 - tap / 3, column = x + 1 - tap % 3;
      if (row % 2 != 0 || column % 2 != 0 || row < 0 || column < 0) continue;
      if (row / 2 >= height || column / 2 >= width) continue;
      const std::int64_t from =
          ((image * height + row / 2) * width + column / 2) * s.channels + channel;
      if (a.taps[from] == tap) g += to_float(a.g[from]);
    }
    a.dx[at] = from_float<bfloat16>(
        static_cast<float>(a.branch.tables.scale[table] * g +
                           static_cast<double>(a.branch.slope[table]) * to_float(a.branch.x[at]) +
                           a.branch.offset[table]));
  });
}

}  // namespace ablate::kernels::reference
