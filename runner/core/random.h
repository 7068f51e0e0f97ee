#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ablate {

/// What a random number is for. Streams of different purposes never overlap. The values are part of
/// every result: never renumber, only append.
enum class Purpose : std::uint32_t {
  ParameterInit = 1,  ///< stream (qualified parameter name in the base model)
  DataOrder = 2,      ///< permutation of an epoch: (epoch)
  Holdout = 3,        ///< which training samples form the validation set
  Augment = 4,        ///< per-sample transforms: (sample draw position key, epoch)
  Mix = 5,            ///< mixup and cutmix: (mixing group in the global batch, step)
  DropPath = 6,       ///< (module name, step), one number a position in the global batch
  Dropout = 7,
  SyntheticData = 8,  ///< generated samples: (sample index)
  Method = 9,         ///< decisions of methods: (method-defined key)
  Statistics = 10,    ///< bootstrap and permutation tests
  Test = 99,
};

/// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): four
/// 32-bit words from a 128-bit counter and a 64-bit key. The device kernels use the same function.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// The Philox key of (seed, purpose).
std::array<std::uint32_t, 2> philox_key(std::uint64_t seed, Purpose purpose);

/// A counter-based stream: a pure function of (seed, purpose, a, b), so nothing about it is ever
/// saved, and neither rank, thread nor call order can change it. The n-th block of four words is
/// philox4x32({n, b, low(a), high(a)}, philox_key(seed, purpose)).
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, Purpose purpose, std::uint64_t a = 0, std::uint32_t b = 0);

  /// Uniform 32-bit word.
  std::uint32_t next();
  /// Goes on as if block * 4 words had been taken from the beginning.
  void seek(std::uint32_t block);
  /// Uniform in [0, 1) with 24 random bits.
  float uniform();
  /// Uniform in [low, high) with 53 random bits.
  double uniform(double low, double high);
  /// Uniform integer in [0, n), n >= 1, without bias.
  std::uint32_t below(std::uint32_t n);
  /// True with probability p.
  bool chance(double p) { return uniform(0.0, 1.0) < p; }
  /// Standard normal (Box-Muller; two words a call).
  double normal();
  /// Gamma(shape, 1), shape > 0 (Marsaglia and Tsang 2000).
  double gamma(double shape);
  /// Beta(a, b), a and b > 0.
  double beta(double a, double b);

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;  // words of block_ already handed out
};

/// A keyed bijection of [0, n): any position of a shuffled epoch in O(1), without a shuffle array
/// (six-round Feistel network with Philox round functions, cycle walking to reach n; four rounds
/// leave visible pair correlations when the halves have few bits).
class Permutation {
 public:
  /// n >= 1.
  Permutation(std::uint64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t stream = 0);

  std::uint64_t operator()(std::uint64_t position) const;
  std::uint64_t size() const { return n_; }

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  std::uint64_t n_;
  std::uint64_t stream_;
  std::array<std::uint32_t, 2> key_;
  int half_bits_;
};

}  // namespace ablate
