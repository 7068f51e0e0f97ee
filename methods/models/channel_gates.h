#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/models/channel_scores.h"
#include "methods/models/channels.h"
#include "methods/models/parameter_settings.h"

namespace ablate {

/// Decides which channels of a model take part while that is being learned: a score for each, times
/// a weight that says how little its like can replace it, against a threshold. A seat decides about
/// one channel group, or about several alike. Child `channel_gates` of a model, with the scores of
/// all seats of one shape as a parameter.
class ChannelGates : public torch::nn::Module {
 public:
  struct Seat {
    std::int64_t heads, width;
    bool shared = false;  ///< one decision for all heads

    std::int64_t rows() const { return shared ? 1 : heads; }  ///< of scores
    bool operator==(const Seat&) const = default;
  };

  /// Reads GateRule's settings and lr_factor. Scores and weights start as 1, the budget as 1.
  ChannelGates(std::vector<Seat> seats, Params& params);

  /// The gate of each seat, (heads * width). In training with gradients also the counts().
  std::vector<at::Tensor> forward();
  /// Channels kept by the last forward(), one number a seat in the order of count_order(); with a
  /// gradient. Handed out once.
  at::Tensor take_counts();
  const std::vector<std::size_t>& count_order() const { return count_order_; }

  const std::vector<Seat>& seats() const { return seats_; }
  const GateRule& rule() const { return rule_; }
  /// The rule for seats of this shape: of shared ones the step of a single row.
  GateRule rule_of(const Seat& seat) const;

  // Of one seat, (rows, width): views that can be written.
  at::Tensor scores(std::size_t seat) const;
  at::Tensor weights(std::size_t seat) const;
  /// Share of the dense model's cost that is aimed at now, a scalar in memory of the device.
  at::Tensor budget() const { return budget_; }

  /// Of its parameters, by their names in this module.
  std::map<std::string, ParameterSettings> parameter_settings() const;

 private:
  struct Stack {
    Seat shape;
    std::vector<std::size_t> seats;
    at::Tensor scores, weights;  ///< (seats, rows, width)
  };
  struct Row {
    std::size_t stack;
    std::int64_t row;
  };

  std::vector<Seat> seats_;
  GateRule rule_;
  double lr_factor_;
  std::vector<Stack> stacks_;
  std::vector<Row> rows_;  // of each seat
  std::vector<std::size_t> count_order_;
  at::Tensor budget_, counts_;
};

}  // namespace ablate
