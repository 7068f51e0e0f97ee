#include "methods/models/channel_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runner/core/params.h"

namespace ablate {
namespace {

const std::vector<std::string> kBalances{"shift", "rank", "multiplicative", "none"};
const std::vector<std::string> kGradients{"plain", "clipped", "sigmoid"};

template <typename Kind>
Kind named(const std::vector<std::string>& names, const std::string& name) {
  return static_cast<Kind>(std::ranges::find(names, name) - names.begin());
}

/// Scores in falling order with the places that they come from, ties by index, and their ranks.
struct Ranked {
  at::Tensor sorted, order, rank;

  explicit Ranked(const at::Tensor& scores) {
    std::tie(sorted, order) = at::sort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
    rank = at::argsort(order, /*stable=*/true, /*dim=*/-1, /*descending=*/false);
  }
};

/// GateRule::allowed() of every seat; counts (seats, 1, 1) in floating point.
at::Tensor allowed_counts(const at::Tensor& counts, const GateRule& rule, std::int64_t heads,
                          std::int64_t width) {
  const auto step = static_cast<double>(rule.step(heads));
  const at::Tensor rounded = (counts / step + 0.5).floor() * step;
  const at::Tensor whole = at::full_like(counts, width);
  return at::where(whole - counts <= (counts - rounded).abs(), whole, rounded)
      .clamp(rule.least(heads, width), width);
}

/// The score of rank `rank` (seats, 1, 1) in each head.
at::Tensor score_at(const Ranked& ranked, const at::Tensor& rank) {
  const at::Tensor place = rank.to(at::kLong).clamp(0, ranked.sorted.size(2) - 1);
  return ranked.sorted.gather(2, place.expand({-1, ranked.sorted.size(1), 1}));
}

GateDecision by_rank(const at::Tensor& scores, const Ranked& ranked, const GateRule& rule) {
  const at::Tensor means = ranked.sorted.mean(1, /*keepdim=*/true);
  const at::Tensor count =
      allowed_counts((means >= rule.threshold).sum(2, /*keepdim=*/true, scores.scalar_type()), rule,
                     scores.size(1), scores.size(2));
  const at::Tensor adjusted = means.expand_as(scores).gather(2, ranked.rank);
  return {adjusted, (ranked.rank < count).to(scores.scalar_type())};
}

/// Moves the scores of heads with more or fewer channels over the threshold than the count that all
/// are to have, so that it lies between the last that stays and the first that goes.
GateDecision by_moving(const at::Tensor& scores, const Ranked& ranked, const GateRule& rule) {
  const at::ScalarType type = scores.scalar_type();
  const at::Tensor own = (scores >= rule.threshold).sum(2, /*keepdim=*/true, type);
  const at::Tensor count =
      allowed_counts(own.mean(1, /*keepdim=*/true), rule, scores.size(1), scores.size(2));
  const at::Tensor last = score_at(ranked, count - 1), next = score_at(ranked, count);
  const at::Tensor border =
      at::where(count == scores.size(2), last, 0.5 * (last + next));  // next is last there
  at::Tensor adjusted;
  if (rule.balance == HeadBalance::Shift) {
    adjusted = scores + at::where(own == count, at::zeros_like(own), rule.threshold - border);
  } else {
    adjusted = scores * at::where(own == count, at::ones_like(own), rule.threshold / border);
  }
  return {adjusted, (ranked.rank < count).to(type)};
}

}  // namespace

GateRule GateRule::read(Params& params) {
  GateRule rule;
  rule.threshold = params.number("threshold", rule.threshold, 0.0, 100.0,
                                 "score from which on a channel takes part");
  rule.balance = named<HeadBalance>(
      kBalances, params.choice("head_balance", "shift", kBalances,
                               "how heads lose channels in equal numbers: scores of a head are "
                               "shifted, averaged by rank over heads, or multiplied; none: each "
                               "head by itself, misaligned after the cut (a control)"));
  rule.gradient = named<StepGradient>(
      kGradients, params.choice("step_gradient", "plain", kGradients,
                                "gradient of the step function: 1, 1 near the threshold, or that "
                                "of a sigmoid"));
  rule.temperature = params.number("temperature", rule.temperature, 1e-3, 100.0,
                                   "of the sigmoid (step_gradient = \"sigmoid\")");
  rule.min_share = params.number("min_share", rule.min_share, 0.0, 1.0,
                                 "share of a head's channels that always stay; one at least does");
  rule.width_multiple = params.integer(
      "width_multiple", rule.width_multiple, 1, 1024,
      "widths of all heads together are kept multiples of this: what hardware likes");
  return rule;
}

std::int64_t GateRule::step(std::int64_t heads) const {
  return width_multiple / std::gcd(width_multiple, heads);
}

std::int64_t GateRule::least(std::int64_t heads, std::int64_t width) const {
  const auto share = static_cast<std::int64_t>(std::floor(min_share * static_cast<double>(width)));
  const std::int64_t unit = step(heads);
  return std::min((std::max<std::int64_t>(share, 1) + unit - 1) / unit * unit, width);
}

std::int64_t GateRule::allowed(double count, std::int64_t heads, std::int64_t width) const {
  const auto unit = static_cast<double>(step(heads));
  const double rounded = std::floor(count / unit + 0.5) * unit;
  const double whole = static_cast<double>(width);
  const double nearest = whole - count <= std::abs(count - rounded) ? whole : rounded;
  return std::clamp(static_cast<std::int64_t>(nearest), least(heads, width), width);
}

GateDecision decide_gates(const at::Tensor& scores, const GateRule& rule) {
  const at::NoGradGuard no_grad;
  const at::Tensor plain = scores.detach();
  if (rule.balance == HeadBalance::None && plain.size(1) > 1) {
    return {plain, (plain >= rule.threshold).to(plain.scalar_type())};
  }
  const Ranked ranked(plain);
  return rule.balance == HeadBalance::Rank ? by_rank(plain, ranked, rule)
                                           : by_moving(plain, ranked, rule);
}

at::Tensor straight_through(const at::Tensor& scores, const GateDecision& decision,
                            const GateRule& rule) {
  const at::Tensor& adjusted = decision.adjusted;
  at::Tensor slope;
  if (rule.gradient == StepGradient::Clipped) {
    slope = ((adjusted - rule.threshold).abs() <= 1.0).to(scores.scalar_type());
  } else if (rule.gradient == StepGradient::Sigmoid) {
    const at::Tensor height = at::sigmoid((adjusted - rule.threshold) / rule.temperature);
    slope = height * (1.0 - height) / rule.temperature;
  }
  const at::Tensor soft = slope.defined() ? scores * slope : scores;
  // soft - soft is 0 but for infinities, which clamped scores are not.
  return decision.kept + (soft - soft.detach());
}

}  // namespace ablate
