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

/// A square 8-bit RGB image (HWC) in the team's memory, with room to work in. Every thread holds a
/// copy of these pointers and swaps them alike.
struct Canvas {
  std::uint8_t* pixels;
  std::uint8_t* spare;  ///< as large as `pixels`
  std::uint8_t* table;  ///< (3, 256)
  int* counts;          ///< (3, 256)
  int* facts;           ///< (3, 2)
  int side;

  ABLATE_HOST_DEVICE int values() const { return side * side * kChannels; }
  ABLATE_HOST_DEVICE void swap() {
    std::uint8_t* const before = pixels;
    pixels = spare;
    spare = before;
  }
};

ABLATE_HOST_DEVICE constexpr std::size_t padded_image_bytes(int side) {
  return (static_cast<std::size_t>(side) * side * kChannels + 15) / 16 * 16;
}

/// Bytes of a canvas.
ABLATE_HOST_DEVICE constexpr std::size_t canvas_bytes(int side) {
  return 2 * padded_image_bytes(side) + kChannels * kLevels +
         (kChannels * kLevels + kChannels * 2) * sizeof(int);
}

/// A canvas in `memory` of canvas_bytes(side), aligned to 16 bytes.
ABLATE_HOST_DEVICE Canvas canvas_in(void* memory, int side) {
  auto* pixels = static_cast<std::uint8_t*>(memory);
  std::uint8_t* const spare = pixels + padded_image_bytes(side);
  std::uint8_t* const table = spare + padded_image_bytes(side);
  auto* counts = reinterpret_cast<int*>(table + kChannels * kLevels);
  return {pixels, spare, table, counts, counts + kChannels * kLevels, side};
}

}  // namespace ablate::augment
