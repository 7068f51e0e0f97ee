#include "datasets/erasing.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "datasets/geometry.h"

namespace ablate {

namespace {

std::optional<Box> draw_box(int height, int width, RandomStream& random) {
  constexpr int kTries = 10;
  constexpr double kAreaLow = 0.02, kAreaHigh = 1.0 / 3.0;
  const double log_ratio = std::log(0.3);
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const double area = random.uniform(kAreaLow, kAreaHigh) * height * width;
    const double aspect = std::exp(random.uniform(log_ratio, -log_ratio));
    const int h = round_half_even(std::sqrt(area * aspect));
    const int w = round_half_even(std::sqrt(area / aspect));
    if (w >= width || h >= height) continue;
    const int top = static_cast<int>(random.below(static_cast<std::uint32_t>(height - h) + 1));
    const int left = static_cast<int>(random.below(static_cast<std::uint32_t>(width - w) + 1));
    return Box{left, top, w, h};
  }
  return std::nullopt;
}

}  // namespace

void random_erase(float* chw, int channels, int height, int width, const Erasing& settings,
                  RandomStream& random) {
  if (!random.chance(settings.probability)) return;
  const std::optional<Box> box = draw_box(height, width, random);
  if (!box) return;
  const auto draw = [&random] { return static_cast<float>(random.normal()); };
  for (int c = 0; c < channels; ++c) {
    const float channel_fill = settings.mode == ErasingMode::Rand ? draw() : 0.0F;
    for (int y = box->top; y < box->top + box->height; ++y) {
      float* first = chw + (static_cast<std::ptrdiff_t>(c) * height + y) * width + box->left;
      if (settings.mode == ErasingMode::Pixel) {
        std::generate_n(first, box->width, draw);
      } else {
        std::fill_n(first, box->width, channel_fill);
      }
    }
  }
}

}  // namespace ablate
