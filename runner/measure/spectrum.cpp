#include "runner/measure/spectrum.h"

#include <cmath>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr int kTenths = 10;
constexpr double kSameRadius = 1e-9;

/// Radius of each frequency, (side, side), in the order of the transform.
at::Tensor radii(std::int64_t side) {
  at::Tensor frequency = at::arange(side, at::kDouble);
  frequency = at::where(frequency > static_cast<double>(side / 2),
                        frequency - static_cast<double>(side), frequency);
  const at::Tensor square = (frequency / (static_cast<double>(side) / 2)).square();
  return (square.unsqueeze(0) + square.unsqueeze(1)).sqrt();
}

}  // namespace

void Spectrum::add(const at::Tensor& maps, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  ABLATE_CHECK(maps.dim() == 4 && maps.size(2) == maps.size(3) && maps.size(2) > 1,
               "a spectrum of ", maps.sizes());
  const at::Tensor amplitude = at::fft_fft2(maps.to(at::kDouble)).abs();
  const at::Tensor counted = (weights != 0).to(at::kDouble).to(amplitude.device());
  const at::Tensor sums = (amplitude.sum(1) * counted.view({-1, 1, 1})).sum(0).cpu();
  sums_ = sums_.defined() ? sums_ + sums : sums;
  channels_ = static_cast<double>(maps.size(1));
  maps_ += counted.sum().item<double>();
}

void Spectrum::reduce(Communicator& communicator) {
  ABLATE_CHECK(sums_.defined(), "a rank without maps");
  at::Tensor all = at::cat({sums_.flatten(), at::full({1}, maps_, at::kDouble)});
  communicator.all_reduce(all);
  maps_ = all[-1].item<double>();
  sums_ = all.narrow(0, 0, all.size(0) - 1).view(sums_.sizes());
}

std::int64_t Spectrum::maps() const { return static_cast<std::int64_t>(maps_); }

std::vector<Spectrum::Point> Spectrum::points() const {
  ABLATE_CHECK(maps_ > 0, "a spectrum of nothing");
  const at::Tensor all = radii(sums_.size(0));
  std::vector<Point> points;
  for (int tenth = 0; tenth <= kTenths; ++tenth) {
    const double wanted = static_cast<double>(tenth) / kTenths;
    const double radius = all.masked_select(all >= wanted - kSameRadius).min().item<double>();
    if (!points.empty() && std::abs(points.back().radius - radius) < kSameRadius) continue;
    const at::Tensor here = (all - radius).abs() < kSameRadius;
    const double sum = sums_.masked_select(here).mean().item<double>();
    points.push_back({radius, std::log(sum / (maps_ * channels_))});
  }
  return points;
}

}  // namespace ablate
