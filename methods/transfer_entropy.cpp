#include "methods/transfer_entropy.h"

#include <algorithm>
#include <cmath>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate {

void GaussianEntropy::add(const at::Tensor& features, const at::Tensor& weights) {
  const at::Tensor rows = features.index({weights != 0}).to(at::kDouble);
  if (rows.size(0) == 0) return;
  const at::Tensor mean = rows.mean(0);
  merge(rows.size(0), mean, (rows - mean).square().sum(0));
}

void GaussianEntropy::merge(std::int64_t samples, const at::Tensor& mean,
                            const at::Tensor& squares) {
  if (samples == 0) return;
  if (samples_ == 0) {
    samples_ = samples;
    mean_ = mean.clone();
    squares_ = squares.clone();
    return;
  }
  const auto old = static_cast<double>(samples_), added = static_cast<double>(samples);
  const at::Tensor shift = mean - mean_;
  mean_ += shift * (added / (old + added));
  squares_ += squares + shift.square() * (old * added / (old + added));
  samples_ += samples;
}

void GaussianEntropy::reduce(Communicator& communicator, at::Device device) {
  const std::int64_t channels =
      communicator.all_reduce(mean_.defined() ? mean_.size(0) : std::int64_t{0}, ReduceOp::Max);
  if (channels == 0) return;
  // A rank without samples contributes zeros, which merge() skips by its count.
  const at::TensorOptions options = at::TensorOptions(at::kDouble).device(device);
  at::Tensor local = at::zeros({2 * channels + 1}, options);
  if (samples_ > 0) {
    local.slice(0, 0, channels).copy_(mean_);
    local.slice(0, channels, 2 * channels).copy_(squares_);
    local[2 * channels] = static_cast<double>(samples_);
  }
  at::Tensor all = at::empty({communicator.size(), 2 * channels + 1}, options);
  communicator.all_gather(local, all);
  samples_ = 0;
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const at::Tensor row = all[rank];
    merge(row[2 * channels].item<std::int64_t>(), row.slice(0, 0, channels),
          row.slice(0, channels, 2 * channels));
  }
}

at::Tensor GaussianEntropy::deviations(bool unbiased) const {
  ABLATE_CHECK(samples_ > 1, "entropy of ", samples_, " samples");
  return (squares_ / static_cast<double>(unbiased ? samples_ - 1 : samples_)).sqrt();
}

void GaussianEntropy::refuse(const at::Tensor& channels, std::string_view what,
                             std::string_view advice) const {
  const at::Tensor found = channels.nonzero();
  if (found.size(0) == 0) return;
  throw Error(cat("channel ", found[0][0].item<std::int64_t>(), " (of ", channels.size(0), ") is ",
                  what, " over ", samples_, " samples", advice));
}

double GaussianEntropy::entropy(bool unbiased, double log_base) const {
  const at::Tensor sigma = deviations(unbiased);
  refuse(sigma.isfinite().logical_not(), "not finite", "");
  // Far below what a single step of float32 in one sample makes, far above the rounding of equal
  // values in float64.
  constexpr double kNoVariation = 1e-12;
  refuse(sigma <= kNoVariation * mean_.abs(), "constant",
         ": its entropy is minus infinity; look at more samples");
  return sigma.log().sum().item<double>() / std::log(log_base);
}

std::vector<SelectionStep> select_layers(
    const std::vector<int>& candidates, int count, bool absolute,
    const std::function<double(const std::vector<int>& skipped)>& entropy_of) {
  ABLATE_CHECK(count <= static_cast<int>(candidates.size()), count, " of ", candidates.size());
  const double full = entropy_of({});
  std::vector<SelectionStep> steps;
  std::vector<int> chosen;
  std::vector<int> left = candidates;
  std::ranges::sort(left);
  for (int k = 0; k < count; ++k) {
    SelectionStep step;
    for (const int candidate : left) {
      std::vector<int> skipped = chosen;
      skipped.insert(std::ranges::upper_bound(skipped, candidate), candidate);
      const double te = full - entropy_of(skipped);
      step.tried.emplace_back(candidate, te);
      const auto key = [&](double value) { return absolute ? std::abs(value) : value; };
      if (step.chosen < 0 || key(te) < key(step.transfer_entropy)) {
        step.chosen = candidate;
        step.transfer_entropy = te;
      }
    }
    std::erase(left, step.chosen);
    chosen.insert(std::ranges::upper_bound(chosen, step.chosen), step.chosen);
    steps.push_back(std::move(step));
  }
  return steps;
}

void for_each_subset(const std::vector<int>& candidates, int count,
                     const std::function<void(const std::vector<int>& subset)>& visit) {
  ABLATE_CHECK(count >= 0 && count <= static_cast<int>(candidates.size()), count, " of ",
               candidates.size());
  std::vector<char> taken(candidates.size(), 0);
  std::fill_n(taken.begin(), count, 1);
  do {
    std::vector<int> subset;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (taken[i]) subset.push_back(candidates[i]);
    }
    visit(subset);
  } while (std::ranges::prev_permutation(taken).found);
}

}  // namespace ablate
