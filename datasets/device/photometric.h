#pragma once

#include "datasets/device/canvas.h"

namespace ablate::augment {

// The operations of datasets/pixel_ops.h, in place, for a team: the same bits. Each leaves the team
// in step.

ABLATE_HOST_DEVICE std::uint8_t clipped(int value) {
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// Pillow's Image.blend of one value.
ABLATE_HOST_DEVICE std::uint8_t blended(int degenerate, int value, float factor) {
  const float mixed =
      static_cast<float>(degenerate) + factor * static_cast<float>(value - degenerate);
  return clipped(static_cast<int>(mixed));
}

/// ITU-R 601 luma with 16 fraction bits.
ABLATE_HOST_DEVICE int grey(const std::uint8_t* rgb) {
  return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

/// value -> rule(value).
template <typename Team, typename Rule>
ABLATE_HOST_DEVICE void map_values(const Team& team, const Canvas& canvas, const Rule& rule) {
  share_out(team, canvas.values(), [&](int i) { canvas.pixels[i] = rule(int{canvas.pixels[i]}); });
  team.sync();
}

/// value -> rule(channel, value), worked out once a level.
template <typename Team, typename Rule>
ABLATE_HOST_DEVICE void map_levels(const Team& team, const Canvas& canvas, const Rule& rule) {
  share_out(team, kChannels * kLevels,
            [&](int i) { canvas.table[i] = rule(i / kLevels, i % kLevels); });
  team.sync();
  share_out(team, canvas.values(), [&](int i) {
    canvas.pixels[i] = canvas.table[i % kChannels * kLevels + canvas.pixels[i]];
  });
  team.sync();
}

/// The histogram of every channel.
template <typename Team>
ABLATE_HOST_DEVICE void count_levels(const Team& team, const Canvas& canvas) {
  share_out(team, kChannels * kLevels, [&](int i) { canvas.counts[i] = 0; });
  team.sync();
  share_out(team, canvas.values(), [&](int i) {
    team.add(&canvas.counts[i % kChannels * kLevels + canvas.pixels[i]], 1);
  });
  team.sync();
}

template <typename Team>
ABLATE_HOST_DEVICE void autocontrast(const Team& team, const Canvas& canvas) {
  count_levels(team, canvas);
  share_out(team, kChannels, [&](int c) {
    const int* counts = canvas.counts + c * kLevels;
    int low = kLevels, high = -1;
    for (int v = 0; v < kLevels; ++v) {
      if (counts[v] == 0) continue;
      high = v;
      if (low == kLevels) low = v;
    }
    canvas.facts[2 * c] = low;
    canvas.facts[2 * c + 1] = high;
  });
  team.sync();
  map_levels(team, canvas, [&](int c, int v) {
    const int low = canvas.facts[2 * c], high = canvas.facts[2 * c + 1];
    if (high <= low) return clipped(v);
    const double scale = 255.0 / (high - low);
    const double offset = -low * scale;
    return clipped(static_cast<int>(v * scale + offset));
  });
}

template <typename Team>
ABLATE_HOST_DEVICE void equalize(const Team& team, const Canvas& canvas) {
  count_levels(team, canvas);
  // Counts become the number of pixels below each level; facts the step, 0 for "as it is".
  share_out(team, kChannels, [&](int c) {
    int* counts = canvas.counts + c * kLevels;
    int pixels = 0, last = 0, bins = 0;
    for (int v = 0; v < kLevels; ++v) {
      const int count = counts[v];
      counts[v] = pixels;
      pixels += count;
      if (count == 0) continue;
      last = count;
      ++bins;
    }
    canvas.facts[2 * c] = bins <= 1 ? 0 : (pixels - last) / 255;
  });
  team.sync();
  map_levels(team, canvas, [&](int c, int v) {
    const int step = canvas.facts[2 * c];
    if (step == 0) return clipped(v);
    return clipped((step / 2 + canvas.counts[c * kLevels + v]) / step);
  });
}

template <typename Team>
ABLATE_HOST_DEVICE void adjust_color(const Team& team, const Canvas& canvas, float factor) {
  share_out(team, canvas.side * canvas.side, [&](int i) {
    std::uint8_t* rgb = canvas.pixels + kChannels * i;
    const int degenerate = grey(rgb);
    for (int c = 0; c < kChannels; ++c) rgb[c] = blended(degenerate, rgb[c], factor);
  });
  team.sync();
}

template <typename Team>
ABLATE_HOST_DEVICE void adjust_contrast(const Team& team, const Canvas& canvas, float factor) {
  if (team.rank() == 0) canvas.facts[0] = 0;
  team.sync();
  const int pixels = canvas.side * canvas.side;
  int sum = 0;
  share_out(team, pixels, [&](int i) { sum += grey(canvas.pixels + kChannels * i); });
  team.add(&canvas.facts[0], sum);
  team.sync();
  const int mean = static_cast<int>(static_cast<double>(canvas.facts[0]) / pixels + 0.5);
  map_values(team, canvas, [&](int v) { return blended(mean, v, factor); });
}

/// Blends with the image smoothed by a 3x3 kernel (1, in the middle 5, over 13); the border stays.
template <typename Team>
ABLATE_HOST_DEVICE void adjust_sharpness(const Team& team, Canvas& canvas, float factor) {
  const int side = canvas.side, stride = side * kChannels;
  share_out(team, canvas.values(), [&](int i) {
    const std::uint8_t* at = canvas.pixels + i;
    const int x = i % stride / kChannels, y = i / stride;
    const bool border = x == 0 || y == 0 || x == side - 1 || y == side - 1;
    int smooth = *at;
    if (!border) {
      const int sum = at[-stride - 3] + at[-stride] + at[-stride + 3] + at[-3] + 5 * at[0] + at[3] +
                      at[stride - 3] + at[stride] + at[stride + 3];
      smooth = (2 * sum + 13) / 26;
    }
    canvas.spare[i] = border ? *at : blended(smooth, *at, factor);
  });
  canvas.swap();
  team.sync();
}

}  // namespace ablate::augment
