#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "methods/models/channel_scores.h"

namespace ablate {

/// Scores of one seat of gates, (rows, width), weighted by similarity; a row a head, or one for
/// all.
struct SeatScores {
  std::vector<std::vector<double>> rows;
  std::int64_t heads = 1;

  std::int64_t width() const { return static_cast<std::int64_t>(rows.front().size()); }
};

/// macs * kept(first), or macs * kept(first) * kept(second): channels of all heads of these seats.
struct CostTerm {
  std::size_t first = 0;
  std::optional<std::size_t> second;
  double macs = 0.0;
};

/// Multiply-accumulates of one image as a function of the channels that are kept.
struct ChannelCosts {
  double fixed = 0.0;
  std::vector<CostTerm> terms;

  double total(const std::vector<double>& kept) const;

  nlohmann::json to_json() const;
  static ChannelCosts from_json(const nlohmann::json& json);
};

/// How many channels each head of each seat keeps.
using SeatWidths = std::vector<std::int64_t>;

/// How the budget is spread over seats.
enum class Allocation {
  Global,   ///< by score, wherever that leads
  Uniform,  ///< about the same share of every seat
};

/// Widths that one offset added to all scores gives.
SeatWidths widths_at(const std::vector<SeatScores>& seats, const GateRule& rule, double offset);

/// The largest network that costs at most `target`: one offset for all scores, found by bisection,
/// then steps of single seats, by score per multiply-accumulate, as long as one fits. Pure and
/// deterministic. Throws SpecError when the least that the rule leaves costs more.
SeatWidths snap_to_budget(const std::vector<SeatScores>& seats, const ChannelCosts& costs,
                          const GateRule& rule, double target, Allocation allocation);

/// Channels (head * width + i, ascending) that a seat keeps at `width` a head: the best of each row
/// by (score, lower index), or with HeadBalance::None the best of all heads together.
std::vector<std::int64_t> kept_channels(const SeatScores& seat, const GateRule& rule,
                                        std::int64_t width);

/// Channels of all heads.
std::vector<double> kept_by(const std::vector<SeatScores>& seats, const SeatWidths& widths);

}  // namespace ablate
