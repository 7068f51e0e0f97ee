#pragma once

#include <cmath>
#include <cstdint>

#include "methods/kernels/host_device.h"
#include "runner/core/random.h"

#ifdef __CUDACC__
#include "methods/kernels/philox.cuh"
#endif

namespace ablate::augment {

/// The Philox key of (seed, purpose), made on the host.
struct StreamKey {
  std::uint32_t low = 0, high = 0;
};

inline StreamKey stream_key(std::uint64_t seed, Purpose purpose) {
  const auto key = philox_key(seed, purpose);
  return {key[0], key[1]};
}

struct PhiloxBlock {
  std::uint32_t x, y, z, w;

  /// Word 0 to 3.
  ABLATE_HOST_DEVICE std::uint32_t word(std::uint32_t which) const {
    const std::uint32_t low = which % 2 == 0 ? x : y;
    const std::uint32_t high = which % 2 == 0 ? z : w;
    return which % 4 < 2 ? low : high;
  }
};

ABLATE_HOST_DEVICE PhiloxBlock philox_block(std::uint32_t block, std::uint32_t b, std::uint64_t a,
                                            StreamKey key) {
  const auto low = static_cast<std::uint32_t>(a), high = static_cast<std::uint32_t>(a >> 32);
#ifdef __CUDA_ARCH__
  const uint4 words =
      kernels::philox4x32(make_uint4(block, b, low, high), make_uint2(key.low, key.high));
  return {words.x, words.y, words.z, words.w};
#else
  const auto words = philox4x32({block, b, low, high}, {key.low, key.high});
  return {words[0], words[1], words[2], words[3]};
#endif
}

/// RandomStream (runner/core/random.h) for kernels: the same numbers in the same order, up to the
/// last bit of logarithms and cosines; any place of the stream can be reached at once.
class CounterStream {
 public:
  ABLATE_HOST_DEVICE CounterStream(StreamKey key, std::uint64_t a, std::uint32_t b)
      : key_(key), a_(a), b_(b) {}

  /// Words handed out so far.
  ABLATE_HOST_DEVICE std::uint32_t position() const { return position_; }
  ABLATE_HOST_DEVICE void seek(std::uint32_t position) {
    position_ = position;
    if (position % 4 != 0) block_ = philox_block(position / 4, b_, a_, key_);
  }

  ABLATE_HOST_DEVICE std::uint32_t next() {
    if (position_ % 4 == 0) block_ = philox_block(position_ / 4, b_, a_, key_);
    return block_.word(position_++);
  }
  /// [0, 1) with 24 random bits.
  ABLATE_HOST_DEVICE float uniform() { return static_cast<float>(next() >> 8) * 0x1p-24F; }
  ABLATE_HOST_DEVICE double uniform(double low, double high) {
    const std::uint64_t upper = next() >> 5;
    const std::uint64_t lower = next() >> 6;
    const double unit = static_cast<double>((upper << 26) | lower) * 0x1p-53;
    const double value = low + (high - low) * unit;
    return value < high ? value : ::nextafter(high, low);
  }
  ABLATE_HOST_DEVICE std::uint32_t below(std::uint32_t n) {
    const std::uint32_t reject_below = (0U - n) % n;
    for (;;) {
      const std::uint64_t product = std::uint64_t{next()} * n;
      if (static_cast<std::uint32_t>(product) >= reject_below) {
        return static_cast<std::uint32_t>(product >> 32);
      }
    }
  }
  ABLATE_HOST_DEVICE bool chance(double p) { return uniform(0.0, 1.0) < p; }
  ABLATE_HOST_DEVICE double normal() {
    constexpr double kTurn = 2.0 * 3.141592653589793;
    const double radius_draw = (static_cast<double>(next()) + 0.5) * 0x1p-32;
    const double angle_draw = static_cast<double>(next()) * 0x1p-32;
    return ::sqrt(-2.0 * ::log(radius_draw)) * ::cos(kTurn * angle_draw);
  }
  ABLATE_HOST_DEVICE double beta(double a, double b) {
    const double log_x = log_gamma(a);
    const double log_y = log_gamma(b);
    return 1.0 / (1.0 + ::exp(log_y - log_x));
  }

 private:
  /// Logarithm of a Gamma(shape, 1) variate (Marsaglia and Tsang 2000), as RandomStream draws it.
  ABLATE_HOST_DEVICE double log_gamma(double shape) {
    const double boost = shape < 1 ? ::log(1.0 - uniform(0.0, 1.0)) / shape : 0.0;
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3.0;
    const double c = 1.0 / ::sqrt(9.0 * d);
    for (;;) {
      const double x = normal();
      const double cube_root = 1.0 + c * x;
      if (cube_root <= 0) continue;
      const double log_v = 3.0 * ::log(cube_root);
      const double u = 1.0 - uniform(0.0, 1.0);
      if (::log(u) < 0.5 * x * x + d - d * ::exp(log_v) + d * log_v) {
        return ::log(d) + log_v + boost;
      }
    }
  }

  StreamKey key_;
  std::uint64_t a_;
  std::uint32_t b_;
  std::uint32_t position_ = 0;
  PhiloxBlock block_{};
};

/// Permutation (runner/core/random.h) for kernels; the stream is given with each position.
struct KeyedOrder {
  StreamKey key;
  std::uint64_t count = 1;
  std::int32_t half_bits = 1;

  ABLATE_HOST_DEVICE std::uint64_t at(std::uint64_t position, std::uint64_t stream) const {
    std::uint64_t value = encrypt(position, stream);
    while (value >= count) value = encrypt(value, stream);
    return value;
  }

 private:
  ABLATE_HOST_DEVICE std::uint64_t encrypt(std::uint64_t value, std::uint64_t stream) const {
    constexpr std::uint32_t kRounds = 6;
    const auto mask = static_cast<std::uint32_t>((std::uint64_t{1} << half_bits) - 1);
    auto left = static_cast<std::uint32_t>(value >> half_bits);
    auto right = static_cast<std::uint32_t>(value) & mask;
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const std::uint32_t mixed = left ^ (philox_block(right, round, stream, key).x & mask);
      left = right;
      right = mixed;
    }
    return (std::uint64_t{left} << half_bits) | right;
  }
};

/// The order of Permutation(count, seed, purpose, stream) for every stream.
KeyedOrder keyed_order(std::uint64_t count, std::uint64_t seed, Purpose purpose);

}  // namespace ablate::augment
