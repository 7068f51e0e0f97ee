#include "methods/models/ops_resize.h"

#include <vector>

#include "methods/models/uncounted.h"

namespace ablate::ops {

at::Tensor bilinear_weights(std::int64_t in, std::int64_t out, const at::TensorOptions& options) {
  const at::TensorOptions exact = options.dtype(at::kDouble);
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  const at::Tensor place =
      ((at::arange(out, exact) + 0.5) * ratio - 0.5).clamp(0.0, static_cast<double>(in - 1));
  const at::Tensor distance = (place.unsqueeze(1) - at::arange(in, exact)).abs();
  return (1.0 - distance).clamp_min(0.0).to(options.dtype().toScalarType());
}

at::Tensor average_weights(std::int64_t in, std::int64_t out, const at::TensorOptions& options) {
  const at::TensorOptions whole = options.dtype(at::kLong);
  const at::Tensor cell = at::arange(out, whole).unsqueeze(1), place = at::arange(in, whole);
  const at::Tensor first = (cell * in).floor_divide(out),
                   end = ((cell + 1) * in + out - 1).floor_divide(out);
  const at::Tensor inside = ((place >= first) & (place < end)).to(at::kDouble);
  return (inside / (end - first)).to(options.dtype().toScalarType());
}

at::Tensor weigh_places(const at::Tensor& map, const at::Tensor& rows, const at::Tensor& columns) {
  const UncountedScope uncounted;
  const std::int64_t batch = map.size(0), channels = map.size(1), height = map.size(2),
                     width = map.size(3), new_height = rows.size(0), new_width = columns.size(0);
  const at::Tensor x = map.permute({0, 2, 3, 1}).reshape({batch, height, width * channels});
  const at::Tensor tall = at::bmm(rows.expand({batch, -1, -1}), x);
  const at::Tensor wide = at::bmm(columns.expand({batch * new_height, -1, -1}),
                                  tall.view({batch * new_height, width, channels}));
  return wide.view({batch, new_height, new_width, channels}).permute({0, 3, 1, 2});
}

at::Tensor resize_bilinear(const at::Tensor& map, std::int64_t height, std::int64_t width) {
  if (map.size(2) == height && map.size(3) == width) return map;
  if (!map.is_cuda()) return at::upsample_bilinear2d(map, {height, width}, false);
  return weigh_places(map, bilinear_weights(map.size(2), height, map.options()),
                      bilinear_weights(map.size(3), width, map.options()));
}

at::Tensor average_to(const at::Tensor& map, std::int64_t height, std::int64_t width) {
  if (!map.is_cuda()) return at::adaptive_avg_pool2d(map, {height, width});
  // In half precision the weights of a cell would not sum up to 1.
  const at::Tensor x = map.to(at::promote_types(map.scalar_type(), at::kFloat));
  return weigh_places(x, average_weights(x.size(2), height, x.options()),
                      average_weights(x.size(3), width, x.options()))
      .to(map.scalar_type());
}

at::Tensor halve_by_max(const at::Tensor& map) {
  if (!map.is_cuda()) return at::max_pool2d(map, 2, 2);
  const std::int64_t height = map.size(2) / 2, width = map.size(3) / 2;
  std::vector<at::Tensor> taps;
  for (std::int64_t i = 0; i < 4; ++i) {
    taps.push_back(map.slice(2, i / 2, 2 * height, 2).slice(3, i % 2, 2 * width, 2));
  }
  return std::get<0>(at::stack(taps).max(0));
}

}  // namespace ablate::ops
