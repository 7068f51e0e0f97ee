#include "runner/measure/spectrum.h"

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "runner/core/random.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

at::Tensor wave(std::int64_t side, double u, double v) {
  const at::Tensor i = at::arange(side, at::kDouble) * (2 * std::numbers::pi / side);
  return (u * i.unsqueeze(0) + v * i.unsqueeze(1)).cos();
}

at::Tensor ones(std::int64_t count) { return at::ones({count}); }

// The radii of 14 x 14 tokens in the spectra of Lin et al., CVPR 2024, authors' code.
TEST(Spectrum, ShowsThePublishedRadii) {
  Spectrum spectrum;
  spectrum.add(at::arange(2 * 3 * 14 * 14).to(at::kFloat).sin().view({2, 3, 14, 14}), ones(2));
  const auto points = spectrum.points();
  const double published[] = {0,     1.0 / 7, .2020, .3194, .4041, .5151,
                              .6061, .7143,   .8081, .9035, 1.0};
  ASSERT_EQ(points.size(), 11U);
  for (std::size_t i = 0; i < 11; ++i) EXPECT_NEAR(points[i].radius, published[i], 5e-5);
}

// A cosine of frequency (u, v) has the amplitude side^2 / 2 at +-(u, v), and none elsewhere.
TEST(Spectrum, FindsAWaveAtItsRadius) {
  constexpr std::int64_t kSide = 14;
  // On the circle of radius sqrt(2) / 7 lie (+-1, +-1), two of which have the wave.
  Spectrum spectrum;
  const at::Tensor map = 3.0 * wave(kSide, 1, 1) + 5.0;
  spectrum.add(map.view({1, 1, kSide, kSide}), ones(1));
  const auto points = spectrum.points();
  EXPECT_NEAR(points[0].log_amplitude, std::log(5.0 * kSide * kSide), 1e-9);
  EXPECT_NEAR(points[2].radius, std::sqrt(2.0) / 7, 1e-9);
  EXPECT_NEAR(points[2].log_amplitude, std::log(3.0 * kSide * kSide / 2 * 2 / 4), 1e-9);
  EXPECT_LT(points[5].log_amplitude, -20.0);
}

TEST(Spectrum, OfWhiteNoiseIsFlat) {
  RandomStream random(1, Purpose::Test);
  at::Tensor noise = at::empty({400, 4, 8, 8}, at::kDouble);
  double* data = noise.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < noise.numel(); ++i) data[i] = random.normal();
  Spectrum spectrum;
  spectrum.add(noise, ones(400));
  for (const auto& point : spectrum.points()) {
    // E |z| of a complex Gaussian of variance 64, or of a real one where the frequency is its own
    // mirror: sqrt(pi/4 64) and sqrt(2/pi 64).
    EXPECT_NEAR(point.log_amplitude, std::log(8.0 * std::sqrt(std::numbers::pi / 4)), 0.12)
        << point.radius;
  }
}

TEST(Spectrum, CountsMapsOnceOverBatchesAndRanks) {
  const at::Tensor maps = at::arange(6 * 2 * 8 * 8, at::kDouble).sin().view({6, 2, 8, 8});
  Spectrum whole;
  whole.add(maps, ones(6));
  std::vector<std::vector<Spectrum::Point>> found(2);
  test::run_ranks(2, [&](Communicator& world) {
    Spectrum part;
    for (std::int64_t i = 0; i < 2; ++i) {
      // The last map of the second rank is padding.
      const std::int64_t first = 4 * world.rank() + 2 * i;
      const at::Tensor padded = at::cat({maps, at::full({2, 2, 8, 8}, 9.0, at::kDouble)});
      const at::Tensor weights = at::tensor({first < 6 ? 1.0 : 0.0, first + 1 < 6 ? 1.0 : 0.0});
      part.add(padded.narrow(0, first, 2), weights);
    }
    part.reduce(world);
    EXPECT_EQ(part.maps(), 6);
    found[static_cast<std::size_t>(world.rank())] = part.points();
  });
  for (const auto& points : found) {
    for (std::size_t i = 0; i < points.size(); ++i) {
      EXPECT_NEAR(points[i].log_amplitude, whole.points()[i].log_amplitude, 1e-12);
    }
  }
}

}  // namespace
}  // namespace ablate
