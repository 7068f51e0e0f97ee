#include "methods/models/backbone.h"

#include <algorithm>
#include <cmath>

#include "runner/core/error.h"

namespace ablate {

std::vector<std::int64_t> FeatureRequest::blocks_of(std::int64_t depth) const {
  for (const std::int64_t block : blocks) {
    if (block < depth) continue;
    throw SpecError(
        cat("model.out_indices: there is no block ", block, "; blocks are 0 to ", depth - 1));
  }
  if (!blocks.empty() && blocks.back() + 1 != depth) {
    throw SpecError(
        cat("model.out_indices: nobody would read the last block; let it end with ", depth - 1));
  }
  if (!blocks.empty()) return blocks;
  const auto after = [depth](std::int64_t part, std::int64_t parts) {
    return std::max<std::int64_t>(depth * part / parts, 1) - 1;
  };
  switch (taps) {
    case Taps::Quarters:
      return {after(1, 4), after(2, 4), after(3, 4), after(4, 4)};
    case Taps::Thirds:
      return {after(1, 3), after(1, 2), after(2, 3), after(1, 1)};
    case Taps::Last:
      return {after(1, 1)};
  }
  check_failed("known taps", cat(static_cast<int>(taps)));
}

void check_square(const at::Tensor& images, std::int64_t side) {
  ABLATE_CHECK(images.dim() == 4 && images.size(2) == side && images.size(3) == side, "images of ",
               images.sizes(), " for a model of side ", side);
}

at::Tensor pad_to_units(const at::Tensor& images, std::int64_t unit) {
  const auto missing = [unit](std::int64_t size) { return (size + unit - 1) / unit * unit - size; };
  const std::int64_t below = missing(images.size(2)), right = missing(images.size(3));
  if (below == 0 && right == 0) return images;
  return at::constant_pad_nd(images, {0, right, 0, below});
}

at::Tensor positions_of_map(const at::Tensor& positions, std::int64_t prefix, std::int64_t height,
                            std::int64_t width) {
  const std::int64_t places = positions.size(1) - prefix;
  const auto side = std::llround(std::sqrt(static_cast<double>(places)));
  ABLATE_CHECK(side * side == places, places, " positions are no square map");
  if (height == side && width == side) return positions;
  const at::Tensor map = positions.slice(1, prefix).unflatten(1, {side, side});
  const at::Tensor resized = at::upsample_bicubic2d(map.permute({0, 3, 1, 2}).contiguous(),
                                                    {height, width}, /*align_corners=*/false);
  const at::Tensor places_first = resized.permute({0, 2, 3, 1}).flatten(1, 2);
  return at::cat({positions.narrow(1, 0, prefix), places_first}, 1).contiguous();
}

}  // namespace ablate
