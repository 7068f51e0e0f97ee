#include "methods/channel_budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr int kBisections = 100;

/// Indices by falling score, ties by index.
std::vector<std::int64_t> order_by_score(const std::vector<double>& scores) {
  std::vector<std::int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  return order;
}

std::vector<double> falling(std::vector<double> scores) {
  std::ranges::sort(scores, std::greater<>());
  return scores;
}

/// Mean over the rows of the r-th largest score, by r.
std::vector<double> rank_means(const SeatScores& seat) {
  std::vector<double> means(seat.rows.front().size(), 0.0);
  for (const auto& row : seat.rows) {
    const std::vector<double> ranked = falling(row);
    for (std::size_t r = 0; r < means.size(); ++r) {
      means[r] += ranked[r] / static_cast<double>(seat.rows.size());
    }
  }
  return means;
}

/// Channels of a row over the threshold, in the mean over rows.
double mean_count(const SeatScores& seat, const GateRule& rule, double offset) {
  const auto passes = [&](double score) { return score + offset >= rule.threshold; };
  if (rule.balance == HeadBalance::Rank) {
    return static_cast<double>(std::ranges::count_if(rank_means(seat), passes));
  }
  double count = 0.0;
  for (const auto& row : seat.rows) {
    count += static_cast<double>(std::ranges::count_if(row, passes));
  }
  return count / static_cast<double>(seat.rows.size());
}

/// Scores that make one offset take the same share everywhere.
SeatScores share_scores(const SeatScores& seat) {
  SeatScores ranks = seat;
  for (std::size_t row = 0; row < seat.rows.size(); ++row) {
    const auto order = order_by_score(seat.rows[row]);
    const auto width = static_cast<double>(order.size());
    for (std::size_t r = 0; r < order.size(); ++r) {
      ranks.rows[row][static_cast<std::size_t>(order[r])] =
          1.0 - (static_cast<double>(r) + 0.5) / width;
    }
  }
  return ranks;
}

double cost_at(const std::vector<SeatScores>& seats, const ChannelCosts& costs,
               const SeatWidths& widths) {
  return costs.total(kept_by(seats, widths));
}

/// The seat's next larger width; nothing when it keeps all.
std::optional<std::int64_t> next_width(const SeatScores& seat, const GateRule& rule,
                                       std::int64_t width) {
  if (width == seat.width()) return std::nullopt;
  return std::min(width + rule.step(seat.heads), seat.width());
}

/// What the channels of ranks [from, to) score, all heads together.
double score_between(const SeatScores& seat, std::int64_t from, std::int64_t to) {
  double sum = 0.0;
  for (const auto& row : seat.rows) {
    const std::vector<double> ranked = falling(row);
    for (std::int64_t r = from; r < to; ++r) sum += ranked[static_cast<std::size_t>(r)];
  }
  return sum * static_cast<double>(seat.heads) / static_cast<double>(seat.rows.size());
}

/// How much a seat is worth widening: by score per multiply-accumulate, or, where all are to keep
/// the same share, by score alone.
double merit(const SeatScores& seat, std::int64_t from, std::int64_t to, double cost,
             Allocation allocation) {
  const double score = score_between(seat, from, to);
  return allocation == Allocation::Uniform ? score / static_cast<double>(seat.heads * (to - from))
                                           : score / std::max(cost, 1.0);
}

/// Takes the best step that fits; false when none does.
bool widen_one(const std::vector<SeatScores>& seats, const ChannelCosts& costs,
               const GateRule& rule, double target, Allocation allocation, SeatWidths& widths) {
  const double now = cost_at(seats, costs, widths);
  std::optional<std::size_t> best;
  double best_merit = 0.0;
  for (std::size_t i = 0; i < seats.size(); ++i) {
    const auto wider = next_width(seats[i], rule, widths[i]);
    if (!wider) continue;
    SeatWidths trial = widths;
    trial[i] = *wider;
    const double cost = cost_at(seats, costs, trial);
    if (cost > target) continue;
    const double value = merit(seats[i], widths[i], *wider, cost - now, allocation);
    if (!best || value > best_merit) {
      best = i;
      best_merit = value;
    }
  }
  if (best) widths[*best] = *next_width(seats[*best], rule, widths[*best]);
  return best.has_value();
}

/// The range in which an offset changes anything.
double offset_reach(const std::vector<SeatScores>& seats, const GateRule& rule) {
  double largest = 0.0;
  for (const SeatScores& seat : seats) {
    for (const auto& row : seat.rows) {
      for (const double score : row) largest = std::max(largest, std::abs(score));
    }
  }
  return 2.0 * (largest + rule.threshold) + 1.0;
}

}  // namespace

double ChannelCosts::total(const std::vector<double>& kept) const {
  double sum = fixed;
  for (const CostTerm& term : terms) {
    sum += term.macs * kept[term.first] * (term.second ? kept[*term.second] : 1.0);
  }
  return sum;
}

nlohmann::json ChannelCosts::to_json() const {
  nlohmann::json json{{"fixed", fixed}, {"terms", nlohmann::json::array()}};
  for (const CostTerm& term : terms) {
    nlohmann::json seats{term.first};
    if (term.second) seats.push_back(*term.second);
    json["terms"].push_back({{"seats", seats}, {"macs", term.macs}});
  }
  return json;
}

ChannelCosts ChannelCosts::from_json(const nlohmann::json& json) {
  ChannelCosts costs{.fixed = json.at("fixed").get<double>(), .terms = {}};
  for (const nlohmann::json& term : json.at("terms")) {
    const auto seats = term.at("seats").get<std::vector<std::size_t>>();
    costs.terms.push_back({seats.at(0), seats.size() > 1 ? std::optional(seats[1]) : std::nullopt,
                           term.at("macs").get<double>()});
  }
  return costs;
}

std::vector<double> kept_by(const std::vector<SeatScores>& seats, const SeatWidths& widths) {
  std::vector<double> kept;
  for (std::size_t i = 0; i < seats.size(); ++i) {
    kept.push_back(static_cast<double>(seats[i].heads * widths[i]));
  }
  return kept;
}

SeatWidths widths_at(const std::vector<SeatScores>& seats, const GateRule& rule, double offset) {
  SeatWidths widths;
  for (const SeatScores& seat : seats) {
    widths.push_back(rule.allowed(mean_count(seat, rule, offset), seat.heads, seat.width()));
  }
  return widths;
}

SeatWidths snap_to_budget(const std::vector<SeatScores>& seats, const ChannelCosts& costs,
                          const GateRule& rule, double target, Allocation allocation) {
  std::vector<SeatScores> spread = seats;
  if (allocation == Allocation::Uniform)
    std::ranges::transform(seats, spread.begin(), share_scores);
  double low = -offset_reach(spread, rule), high = -low;
  SeatWidths widths = widths_at(spread, rule, low);
  if (const double least = cost_at(seats, costs, widths); least > target) {
    throw SpecError(cat("methods.channel_pruning.target: ", target / 1e6,
                        " million multiply-accumulates are fewer than the ", least / 1e6,
                        " million that are left when every channel goes that may go; raise "
                        "target, or lower min_share or width_multiple"));
  }
  for (int i = 0; i < kBisections; ++i) {
    const double middle = 0.5 * (low + high);
    const SeatWidths trial = widths_at(spread, rule, middle);
    if (cost_at(seats, costs, trial) <= target) {
      low = middle;
      widths = trial;
    } else {
      high = middle;
    }
  }
  while (widen_one(spread, costs, rule, target, allocation, widths)) {
  }
  return widths;
}

std::vector<std::int64_t> kept_channels(const SeatScores& seat, const GateRule& rule,
                                        std::int64_t width) {
  std::vector<std::int64_t> kept;
  if (rule.balance == HeadBalance::None && seat.rows.size() > 1) {
    std::vector<double> all;
    for (const auto& row : seat.rows) all.insert(all.end(), row.begin(), row.end());
    kept = order_by_score(all);
    kept.resize(static_cast<std::size_t>(width * seat.heads));
  } else {
    for (std::int64_t head = 0; head < seat.heads; ++head) {
      const bool shared = seat.rows.size() == 1;
      const auto order = order_by_score(seat.rows[shared ? 0 : static_cast<std::size_t>(head)]);
      for (std::int64_t r = 0; r < width; ++r) {
        kept.push_back(head * seat.width() + order[static_cast<std::size_t>(r)]);
      }
    }
  }
  std::ranges::sort(kept);
  return kept;
}

}  // namespace ablate
