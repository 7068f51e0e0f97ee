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
  share_out(team, kChannels * canvas.plane(),
            [&](int i) { canvas.pixels[i] = rule(int{canvas.pixels[i]}); });
  team.sync();
}

/// value -> rule(channel, value), worked out once a level.
template <typename Team, typename Rule>
ABLATE_HOST_DEVICE void map_levels(const Team& team, const Canvas& canvas, const Rule& rule) {
  share_out(team, kChannels * kLevels,
            [&](int i) { canvas.table[i] = rule(i / kLevels, i % kLevels); });
  team.sync();
  share_pixels(team, canvas, [&](std::uint8_t* rgb, int, int) {
    for (int c = 0; c < kChannels; ++c) rgb[c] = canvas.table[c * kLevels + rgb[c]];
  });
  team.sync();
}

/// Some neighbouring levels of a channel's histogram.
struct LevelSegment {
  int channel;
  int first;    ///< level
  int below;    ///< pixels of lower levels than these
  bool lowest;  ///< with pixels, of the channel's segments
  bool highest;
  int* counts;  ///< of the segment's levels

  static constexpr int kSize = kLevels / kSegments;
};

/// Counts the levels of every channel, then visit(segment) for all segments. A visit may write the
/// counts of its own segment.
template <typename Team, typename Visit>
ABLATE_HOST_DEVICE void visit_histogram(const Team& team, const Canvas& canvas,
                                        const Visit& visit) {
  share_out(team, kChannels * kLevels, [&](int i) { canvas.counts[i] = 0; });
  team.sync();
  share_pixels(team, canvas, [&](const std::uint8_t* rgb, int, int) {
    for (int c = 0; c < kChannels; ++c) team.add(&canvas.counts[c * kLevels + rgb[c]], 1);
  });
  team.sync();
  constexpr int kSize = LevelSegment::kSize;
  share_out(team, kChannels * kSegments, [&](int i) {
    int sum = 0;
    for (int k = 0; k < kSize; ++k) sum += canvas.counts[i * kSize + k];
    canvas.sums[i] = sum;
  });
  team.sync();
  share_out(team, kChannels * kSegments, [&](int i) {
    const int channel = i / kSegments, own = i % kSegments;
    int below = 0, above = 0;
    for (int k = 0; k < kSegments; ++k) {
      const int sum = canvas.sums[channel * kSegments + k];
      if (k < own) below += sum;
      if (k > own) above += sum;
    }
    const bool empty = canvas.sums[i] == 0;
    visit(LevelSegment{channel, own * kSize, below, !empty && below == 0, !empty && above == 0,
                       canvas.counts + i * kSize});
  });
  team.sync();
}

template <typename Team>
ABLATE_HOST_DEVICE void autocontrast(const Team& team, const Canvas& canvas) {
  visit_histogram(team, canvas, [&](const LevelSegment& segment) {
    int low = -1, high = -1;
    for (int k = 0; k < LevelSegment::kSize; ++k) {
      if (segment.counts[k] == 0) continue;
      high = segment.first + k;
      if (low < 0) low = high;
    }
    if (segment.lowest) canvas.facts[2 * segment.channel] = low;
    if (segment.highest) canvas.facts[2 * segment.channel + 1] = high;
  });
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
  const int pixels = canvas.plane();
  // Counts become the number of pixels of lower levels. A single level gives the step 0, which
  // means "as it is".
  visit_histogram(team, canvas, [&](const LevelSegment& segment) {
    int below = segment.below, last = 0;
    for (int k = 0; k < LevelSegment::kSize; ++k) {
      const int count = segment.counts[k];
      segment.counts[k] = below;
      below += count;
      if (count > 0) last = count;
    }
    if (segment.highest) canvas.facts[segment.channel] = (pixels - last) / 255;
  });
  map_levels(team, canvas, [&](int c, int v) {
    const int step = canvas.facts[c];
    if (step == 0) return clipped(v);
    return clipped((step / 2 + canvas.counts[c * kLevels + v]) / step);
  });
}

template <typename Team>
ABLATE_HOST_DEVICE void adjust_color(const Team& team, const Canvas& canvas, float factor) {
  share_pixels(team, canvas, [&](std::uint8_t* rgb, int, int) {
    const int degenerate = grey(rgb);
    for (int c = 0; c < kChannels; ++c) rgb[c] = blended(degenerate, rgb[c], factor);
  });
  team.sync();
}

template <typename Team>
ABLATE_HOST_DEVICE void adjust_contrast(const Team& team, const Canvas& canvas, float factor) {
  if (team.rank() == 0) canvas.facts[0] = 0;
  team.sync();
  int sum = 0;
  share_pixels(team, canvas, [&](const std::uint8_t* rgb, int, int) { sum += grey(rgb); });
  team.add(&canvas.facts[0], sum);
  team.sync();
  const int mean = static_cast<int>(static_cast<double>(canvas.facts[0]) / canvas.plane() + 0.5);
  map_values(team, canvas, [&](int v) { return blended(mean, v, factor); });
}

/// Blends with the image smoothed by a 3x3 kernel (1, in the middle 5, over 13); the border stays.
template <typename Team>
ABLATE_HOST_DEVICE void adjust_sharpness(const Team& team, Canvas& canvas, float factor) {
  const int last = canvas.side - 1, stride = canvas.side * kChannels;
  share_pixels(team, canvas, [&](const std::uint8_t* rgb, int y, int x) {
    std::uint8_t* out = canvas.spare + (rgb - canvas.pixels);
    const bool border = x == 0 || y == 0 || x == last || y == last;
    for (int c = 0; c < kChannels; ++c) {
      const std::uint8_t* at = rgb + c;
      if (border) {
        out[c] = *at;
        continue;
      }
      const int sum = at[-stride - 3] + at[-stride] + at[-stride + 3] + at[-3] + 5 * at[0] + at[3] +
                      at[stride - 3] + at[stride] + at[stride + 3];
      out[c] = blended((2 * sum + 13) / 26, *at, factor);
    }
  });
  canvas.swap();
  team.sync();
}

}  // namespace ablate::augment
