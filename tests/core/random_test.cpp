#include "runner/core/random.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers of Random123's kat_vectors.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Computed by an independent implementation: these numbers are part of every stored result.
TEST(Philox, KeysAndStreamsNeverChange) {
  EXPECT_EQ(philox_key(42, Purpose::Augment),
            (std::array<std::uint32_t, 2>{0xe512b2e1, 0x48ee0097}));
  RandomStream stream(42, Purpose::Augment, 0x123456789abcdef0, 7);
  for (const std::uint32_t word :
       {0x506774c1U, 0x455f1bdeU, 0x6639ab99U, 0x800571a2U, 0x9e4991d2U, 0x30f69bd2U}) {
    EXPECT_EQ(stream.next(), word);
  }
}

TEST(Philox, BlockOfAStreamIsAPureFunctionOfItsCounter) {
  RandomStream stream(7, Purpose::Mix, (std::uint64_t{5} << 32) + 3, 11);
  for (std::uint32_t block = 0; block < 3; ++block) {
    for (const std::uint32_t word : philox4x32({block, 11, 3, 5}, philox_key(7, Purpose::Mix))) {
      EXPECT_EQ(stream.next(), word);
    }
  }
}

TEST(RandomStream, SeeksABlockFromAnywhere) {
  RandomStream straight(7, Purpose::Test, 5), seeking(7, Purpose::Test, 5);
  for (int i = 0; i < 12; ++i) straight.next();
  seeking.next();
  seeking.seek(3);
  EXPECT_EQ(seeking.next(), straight.next());
  EXPECT_EQ(seeking.next(), straight.next());
}

TEST(Philox, SeedsAndPurposesHaveDifferentKeys) {
  std::set<std::array<std::uint32_t, 2>> keys;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    for (std::uint32_t purpose = 1; purpose <= 10; ++purpose) {
      keys.insert(philox_key(seed, static_cast<Purpose>(purpose)));
    }
  }
  EXPECT_EQ(keys.size(), 10'000U);
}

struct Moments {
  double mean = 0;
  double variance = 0;
};

template <typename Draw>
Moments moments_of(int count, Draw draw) {
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < count; ++i) {
    const double value = draw();
    sum += value;
    squares += value * value;
  }
  const double mean = sum / count;
  return {mean, squares / count - mean * mean};
}

constexpr int kDraws = 200'000;

TEST(RandomStream, UniformHasItsMomentsAndRange) {
  RandomStream stream(1, Purpose::Test);
  const Moments floats = moments_of(kDraws, [&] {
    const float value = stream.uniform();
    EXPECT_TRUE(value >= 0.0F && value < 1.0F) << value;
    return static_cast<double>(value);
  });
  EXPECT_NEAR(floats.mean, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(floats.variance, 1.0 / 12, 1e-3);
  const Moments doubles = moments_of(kDraws, [&] { return stream.uniform(-3.0, 5.0); });
  EXPECT_NEAR(doubles.mean, 1.0, 5 * std::sqrt(64.0 / 12 / kDraws));
}

TEST(RandomStream, UniformNeverReachesItsUpperEnd) {
  RandomStream stream(1, Purpose::Test);
  const double low = 1.0;
  const double high = std::nextafter(1.0, 2.0);  // half of all draws would round up to it
  for (int i = 0; i < 100; ++i) EXPECT_EQ(stream.uniform(low, high), low);
}

TEST(RandomStream, BelowIsUnbiasedForAnAwkwardBound) {
  RandomStream stream(2, Purpose::Test);
  const std::uint32_t bound = 3'000'000'000U;  // words modulo it would favour the lower 43 %
  const double lower_third =
      moments_of(kDraws, [&] { return stream.below(bound) < bound / 3 ? 1.0 : 0.0; }).mean;
  EXPECT_NEAR(lower_third, 1.0 / 3, 5 * std::sqrt(2.0 / 9 / kDraws));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(stream.below(1), 0U);
  EXPECT_THROW(stream.below(0), BugError);
}

TEST(RandomStream, NormalHasItsFirstFourMoments) {
  RandomStream stream(3, Purpose::Test);
  double fourth = 0;
  const Moments moments = moments_of(kDraws, [&] {
    const double value = stream.normal();
    fourth += value * value * value * value / kDraws;
    return value;
  });
  EXPECT_NEAR(moments.mean, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(moments.variance, 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(fourth, 3, 5 * std::sqrt(96.0 / kDraws));
}

TEST(RandomStream, GammaHasMeanAndVarianceOfItsShape) {
  for (const double shape : {0.3, 1.0, 4.5}) {
    RandomStream stream(4, Purpose::Test);
    const Moments moments = moments_of(kDraws, [&] { return stream.gamma(shape); });
    EXPECT_NEAR(moments.mean, shape, 5 * std::sqrt(shape / kDraws)) << shape;
    EXPECT_NEAR(moments.variance, shape, 0.05 * shape) << shape;
  }
  RandomStream stream(4, Purpose::Test);
  EXPECT_THROW(stream.gamma(0), BugError);
}

TEST(RandomStream, BetaHasMeanAndVarianceOfItsShapes) {
  const std::vector<std::pair<double, double>> shapes = {{0.8, 0.8}, {1, 1}, {2, 5}};
  for (const auto& [a, b] : shapes) {
    RandomStream stream(5, Purpose::Test);
    const double variance = a * b / ((a + b) * (a + b) * (a + b + 1));
    const Moments moments = moments_of(kDraws, [&, a = a, b = b] { return stream.beta(a, b); });
    EXPECT_NEAR(moments.mean, a / (a + b), 5 * std::sqrt(variance / kDraws));
    EXPECT_NEAR(moments.variance, variance, 0.03 * variance);
  }
}

TEST(RandomStream, BetaOfTinyShapesStaysANumber) {
  RandomStream stream(6, Purpose::Test);
  int ones = 0;
  for (int i = 0; i < 2000; ++i) {
    const double value = stream.beta(1e-4, 1e-4);  // both Gamma variates underflow
    ASSERT_TRUE(value >= 0 && value <= 1) << value;
    ones += value > 0.5 ? 1 : 0;
  }
  EXPECT_NEAR(ones, 1000, 5 * std::sqrt(500));
}

TEST(Permutation, IsABijectionForManySizes) {
  std::vector<std::uint64_t> sizes(70);
  std::iota(sizes.begin(), sizes.end(), 1);
  sizes.insert(sizes.end(), {255, 256, 257, 1000, 4095, 4096, 4097, 50'000});
  for (const std::uint64_t n : sizes) {
    const Permutation permutation(n, 9, Purpose::DataOrder, n);
    std::vector<bool> seen(n, false);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t image = permutation(i);
      ASSERT_LT(image, n);
      ASSERT_FALSE(seen[image]) << "n = " << n << ", position " << i;
      seen[image] = true;
    }
  }
}

TEST(Permutation, NeverChanges) {
  const Permutation ten(10, 1, Purpose::DataOrder);
  const std::vector<std::uint64_t> expected = {6, 1, 3, 9, 8, 5, 0, 4, 2, 7};
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(ten(i), expected[i]);
  const Permutation large(50'000, 3, Purpose::DataOrder, 17);
  EXPECT_EQ(large(0), 44U);
  EXPECT_EQ(large(5), 12'813U);
  const Permutation huge((std::uint64_t{1} << 63) + 5, 3, Purpose::DataOrder, 1);
  EXPECT_EQ(huge(1), 8'568'282'887'298'021'498U);
}

TEST(Permutation, RefusesPositionsOutside) {
  const Permutation permutation(10, 1, Purpose::DataOrder);
  EXPECT_THROW(permutation(10), BugError);
  EXPECT_THROW(Permutation(0, 1, Purpose::DataOrder), BugError);
}

TEST(Permutation, EveryImageIsEquallyLikelyOverStreams) {
  const std::uint64_t n = 12;
  const int streams = 12'000;
  std::vector<int> images(n, 0);
  std::vector<int> differences(n, 0);  // of the images of two neighbours, modulo n
  for (int stream = 0; stream < streams; ++stream) {
    const Permutation permutation(n, 4, Purpose::DataOrder, static_cast<std::uint64_t>(stream));
    ++images[permutation(5)];
    ++differences[(permutation(6) + n - permutation(5)) % n];
  }
  const auto chi_square = [&](auto begin, auto end) {
    const double expected = static_cast<double>(streams) / static_cast<double>(end - begin);
    return std::accumulate(begin, end, 0.0, [&](double sum, int count) {
      return sum + (count - expected) * (count - expected) / expected;
    });
  };
  EXPECT_LT(chi_square(images.begin(), images.end()), 36);  // 11 degrees, p = 1.7e-4
  EXPECT_EQ(differences[0], 0);
  EXPECT_LT(chi_square(differences.begin() + 1, differences.end()), 34);  // 10 degrees, p = 1.9e-4
}

}  // namespace
}  // namespace ablate
