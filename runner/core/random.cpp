#include "runner/core/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

#include "runner/core/error.h"

namespace ablate {

namespace {

std::uint32_t low_half(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
std::uint32_t high_half(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

/// The output function of SplitMix64 (Steele et al., OOPSLA 2014): a bijection that spreads seeds
/// that differ in few bits.
std::uint64_t mix64(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

/// Logarithm of a Gamma(shape, 1) variate. Shapes below 1 are drawn as Gamma(shape + 1)
/// U^(1/shape), which underflows for small shapes unless it stays a logarithm.
double log_gamma_variate(RandomStream& stream, double shape) {
  ABLATE_CHECK(shape > 0, "gamma of shape ", shape);
  const double boost =
      shape < 1 ? std::log(1.0 - stream.uniform(0.0, 1.0)) / shape : 0.0;  // log of (0, 1]
  const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = stream.normal();
    const double cube_root = 1.0 + c * x;
    if (cube_root <= 0) continue;
    const double log_v = 3.0 * std::log(cube_root);
    const double u = 1.0 - stream.uniform(0.0, 1.0);
    if (std::log(u) < 0.5 * x * x + d - d * std::exp(log_v) + d * log_v) {
      return std::log(d) + log_v + boost;
    }
  }
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xd2511f53U} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xcd9e8d57U} * counter[2];
    counter = {high_half(product1) ^ counter[1] ^ key[0], low_half(product1),
               high_half(product0) ^ counter[3] ^ key[1], low_half(product0)};
    key[0] += 0x9e3779b9U;
    key[1] += 0xbb67ae85U;
  }
  return counter;
}

std::array<std::uint32_t, 2> philox_key(std::uint64_t seed, Purpose purpose) {
  // Bijective in the purpose for a fixed seed: two purposes of one run never share a key.
  const std::uint64_t key = mix64(mix64(seed) ^ static_cast<std::uint32_t>(purpose));
  return {low_half(key), high_half(key)};
}

RandomStream::RandomStream(std::uint64_t seed, Purpose purpose, std::uint64_t a, std::uint32_t b)
    : key_(philox_key(seed, purpose)), counter_{0, b, low_half(a), high_half(a)} {}

std::uint32_t RandomStream::next() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ABLATE_CHECK(++counter_[0] != 0, "random stream used up");
    used_ = 0;
  }
  return block_[static_cast<std::size_t>(used_++)];
}

void RandomStream::seek(std::uint32_t block) {
  counter_[0] = block;
  used_ = 4;
}

float RandomStream::uniform() { return static_cast<float>(next() >> 8) * 0x1p-24F; }

double RandomStream::uniform(double low, double high) {
  const std::uint64_t upper = next() >> 5;  // 27 bits
  const std::uint64_t lower = next() >> 6;  // 26 bits
  const double unit = static_cast<double>((upper << 26) | lower) * 0x1p-53;
  const double value = low + (high - low) * unit;
  return value < high ? value : std::nextafter(high, low);  // the sum may have rounded up
}

std::uint32_t RandomStream::below(std::uint32_t n) {
  ABLATE_CHECK(n >= 1);
  // Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 2019.
  const std::uint32_t reject_below = (0U - n) % n;
  for (;;) {
    const std::uint64_t product = std::uint64_t{next()} * n;
    if (low_half(product) >= reject_below) return high_half(product);
  }
}

double RandomStream::normal() {
  const double radius_draw = (static_cast<double>(next()) + 0.5) * 0x1p-32;  // in (0, 1)
  const double angle_draw = static_cast<double>(next()) * 0x1p-32;
  return std::sqrt(-2.0 * std::log(radius_draw)) * std::cos(2.0 * std::numbers::pi * angle_draw);
}

double RandomStream::gamma(double shape) { return std::exp(log_gamma_variate(*this, shape)); }

double RandomStream::beta(double a, double b) {
  // x / (x + y) of two Gamma variates, by logarithms so that small a and b never give 0 / 0.
  const double log_x = log_gamma_variate(*this, a);
  const double log_y = log_gamma_variate(*this, b);
  return 1.0 / (1.0 + std::exp(log_y - log_x));
}

Permutation::Permutation(std::uint64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t stream)
    : n_(n), stream_(stream), key_(philox_key(seed, purpose)) {
  ABLATE_CHECK(n >= 1);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  static constexpr std::uint32_t kRounds = 6;
  // half_bits_ may be 32, where a 32-bit shift would be undefined.
  const auto mask = static_cast<std::uint32_t>((std::uint64_t{1} << half_bits_) - 1);
  auto left = static_cast<std::uint32_t>(value >> half_bits_);
  auto right = static_cast<std::uint32_t>(value) & mask;
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    left ^= philox4x32({right, round, low_half(stream_), high_half(stream_)}, key_)[0] & mask;
    std::swap(left, right);
  }
  return (std::uint64_t{left} << half_bits_) | right;
}

std::uint64_t Permutation::operator()(std::uint64_t position) const {
  ABLATE_CHECK(position < n_, "position ", position, " of ", n_);
  // The network permutes a power of four that is at most four times n; walking the cycle until it
  // re-enters [0, n) keeps it a bijection there.
  std::uint64_t value = encrypt(position);
  while (value >= n_) value = encrypt(value);
  return value;
}

}  // namespace ablate
