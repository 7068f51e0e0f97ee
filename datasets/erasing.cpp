#include "datasets/erasing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
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

/// Independent draws from N(0, 1): both values of each Box-Muller pair, in single precision, since
/// thousands are wanted at once.
void fill_normal(float* out, int count, RandomStream& random) {
  constexpr float kTurn = 2 * std::numbers::pi_v<float>;
  for (int i = 0; i < count; i += 2) {
    const float radius = std::sqrt(-2.0F * std::log(1.0F - random.uniform()));
    const float angle = kTurn * random.uniform();
    out[i] = radius * std::cos(angle);
    if (i + 1 < count) out[i + 1] = radius * std::sin(angle);
  }
}

}  // namespace

void random_erase(float* chw, int channels, int height, int width, const Erasing& settings,
                  RandomStream& random) {
  if (!random.chance(settings.probability)) return;
  const std::optional<Box> box = draw_box(height, width, random);
  if (!box) return;
  for (int c = 0; c < channels; ++c) {
    float channel_fill = 0;
    if (settings.mode == ErasingMode::Rand) fill_normal(&channel_fill, 1, random);
    for (int y = box->top; y < box->top + box->height; ++y) {
      float* first = chw + (static_cast<std::ptrdiff_t>(c) * height + y) * width + box->left;
      if (settings.mode == ErasingMode::Pixel) {
        fill_normal(first, box->width, random);
      } else {
        std::fill_n(first, box->width, channel_fill);
      }
    }
  }
}

}  // namespace ablate
