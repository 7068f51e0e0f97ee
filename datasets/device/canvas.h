#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/host_device.h"

namespace ablate::augment {

// Everything from here to train_sample.h is written for a team that works on one image together: a
// thread block on the device, a single thread on the host. A team has rank(), size(), sync(),
// add(int* sum, int value) without a race, and leads(role): true in one of its threads, another one
// for each of roles 0 to 3 where there are enough.

/// A team of one.
struct OneThread {
  static int rank() { return 0; }
  static int size() { return 1; }
  static void sync() {}
  static void add(int* sum, int value) { *sum += value; }
  static bool leads(int) { return true; }
};

/// body(i) for all i < count, shared out among the team.
template <typename Team, typename Body>
ABLATE_HOST_DEVICE void share_out(const Team& team, int count, const Body& body) {
  for (int i = team.rank(); i < count; i += team.size()) body(i);
}

inline constexpr int kChannels = 3;
inline constexpr int kLevels = 256;
inline constexpr int kSegments = 16;  ///< of a channel's levels, where they are summed

/// A square 8-bit RGB image (HWC) in the team's memory, with room to work in. Every thread holds a
/// copy of these pointers and swaps them alike.
struct Canvas {
  std::uint8_t* pixels;
  std::uint8_t* spare;  ///< as large as `pixels`
  std::uint8_t* table;  ///< (3, 256)
  int* counts;          ///< (3, 256)
  int* sums;            ///< (3, 16)
  int* facts;           ///< (3, 2)
  float* normalized;    ///< (3, 256): what each level becomes in the end
  int side;

  ABLATE_HOST_DEVICE int plane() const { return side * side; }
  ABLATE_HOST_DEVICE void swap() {
    std::uint8_t* const before = pixels;
    pixels = spare;
    spare = before;
  }
};

/// body(rgb, y, x) for all pixels.
template <typename Team, typename Body>
ABLATE_HOST_DEVICE void share_pixels(const Team& team, const Canvas& canvas, const Body& body) {
  share_out(team, canvas.plane(), [&](int i) {
    const int y = i / canvas.side;
    body(canvas.pixels + kChannels * i, y, i - y * canvas.side);
  });
}

ABLATE_HOST_DEVICE constexpr std::size_t padded_image_bytes(int side) {
  return (static_cast<std::size_t>(side) * side * kChannels + 15) / 16 * 16;
}

/// Bytes of a canvas's tables.
ABLATE_HOST_DEVICE constexpr std::size_t canvas_table_bytes() {
  return kChannels * kLevels + (kChannels * (kLevels + kSegments + 2)) * sizeof(int) +
         kChannels * kLevels * sizeof(float);
}

/// Bytes of a canvas.
ABLATE_HOST_DEVICE constexpr std::size_t canvas_bytes(int side) {
  return 2 * padded_image_bytes(side) + canvas_table_bytes();
}

/// A canvas of two images and of canvas_table_bytes() of memory for the rest, aligned to 16 bytes.
ABLATE_HOST_DEVICE Canvas canvas_of(std::uint8_t* pixels, std::uint8_t* spare, std::uint8_t* tables,
                                    int side) {
  auto* counts = reinterpret_cast<int*>(tables + kChannels * kLevels);
  int* const sums = counts + kChannels * kLevels;
  int* const facts = sums + kChannels * kSegments;
  auto* normalized = reinterpret_cast<float*>(facts + kChannels * 2);
  return {pixels, spare, tables, counts, sums, facts, normalized, side};
}

/// A canvas in `memory` of canvas_bytes(side), aligned to 16 bytes.
ABLATE_HOST_DEVICE Canvas canvas_in(void* memory, int side) {
  auto* pixels = static_cast<std::uint8_t*>(memory);
  std::uint8_t* const spare = pixels + padded_image_bytes(side);
  return canvas_of(pixels, spare, spare + padded_image_bytes(side), side);
}

}  // namespace ablate::augment
