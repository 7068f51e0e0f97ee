#pragma once

#include <string>
#include <vector>

#include "methods/channel_budget.h"
#include "methods/channel_similarity.h"
#include "methods/channel_statistics.h"
#include "methods/method.h"

namespace ablate::methods::channel_pruning {

/// What decides which channels stay.
enum class Criterion {
  Indicator,  ///< scores learned together with the weights
  // Baselines, decided before training:
  Magnitude,
  Taylor,
  Random,
};

enum class Start { Attention, SingleChannel, Constant, Random, Magnitude };

/// Penalty on the excess e = cost / aimed at - 1.
enum class BudgetLoss { Squared, OneSided, Absolute, Gmacs };

enum class Reweighting { None, Dynamic, Static, Head, LeastSquares };

/// Settings of the method.
struct Settings {
  double target;
  Criterion criterion;
  Allocation allocation;
  bool qk, v, mlp;
  bool tie_qkv, tie_v_index;
  GateRule rule;
  Value gate_params;  ///< of the edit AttachGates
  SimilarityForm similarity;
  std::int64_t similarity_every;
  double similarity_decay;
  Start start;
  bool start_everywhere;
  double search_epochs;
  double lambda;
  BudgetLoss budget_loss;
  double ramp;
  Reweighting reweighting;
  DecisionSplit split;
  std::int64_t samples;

  /// Throws SpecError on settings that contradict each other.
  static Settings read(Params& params);
};

/// Seats of gates and the groups that each decides about.
struct Seats {
  std::vector<ChannelSeat> places;
  std::vector<std::vector<ChannelSite>> sites;
};

/// Seats for the groups that the settings name. Throws SpecError when the model has none of them.
Seats choose_seats(Model& model, const Settings& settings);
/// The seats of an edit in the model as it is now.
Seats find_seats(Model& model, const std::vector<ChannelSeat>& places);

/// What of `macs`, those of the model as it is, depends on the seats. Attentions that are about to
/// be removed cost nothing.
ChannelCosts costs_of(Model& model, const Seats& seats, std::int64_t macs);

/// Numbers for each seat, (rows, width), double.
using SeatValues = std::vector<at::Tensor>;

/// Factors of scores by similarity; on data for activations. Ones without.
SeatValues similarity_factors(TrainContext& context, const Seats& seats, const Settings& settings);
/// Scores to start a search with: 1, or within heads 0.8 to 1.2 by rank.
SeatValues starting_scores(TrainContext& context, const Seats& seats, const Settings& settings);
/// Scores of a baseline.
SeatValues baseline_scores(TrainContext& context, const Seats& seats, const Settings& settings);

/// The cut that these scores and the budget make.
struct Cut {
  std::vector<KeepChannels> edits;
  double macs;
};
Cut plan_cut(const Seats& seats, const SeatValues& scores, const ChannelCosts& costs, double budget,
             const Settings& settings);

/// The budget's term of the loss, for captured steps: what the channels that gates let through
/// cost, over what is aimed at.
class BudgetPenalty {
 public:
  BudgetPenalty() = default;
  /// `dense`: multiply-accumulates that shares refer to.
  BudgetPenalty(const ChannelCosts& costs, double dense, const ChannelGates& gates,
                const Settings& settings);

  bool defined() const { return linear_.defined(); }
  /// `counts` in the order of ChannelGates::count_order(), `aim` the share aimed at, ().
  at::Tensor of(const at::Tensor& counts, const at::Tensor& aim) const;

 private:
  BudgetLoss loss_ = BudgetLoss::Squared;
  double lambda_ = 0.0, dense_ = 0.0;
  double fixed_ = 0.0;    // share of the dense cost
  at::Tensor linear_;     // (seats), the same for each channel
  at::Tensor quadratic_;  // (seats, seats) for each pair; undefined without products
};

/// Puts a reweighting on every group of values among the seats, where the kind is a module.
void attach_reweighting(TrainContext& context, const Seats& seats, Reweighting kind);
/// Multiplies constant ones into what reads them.
void fold_reweighting(Surgeon& surgeon);

/// Before a cut: adds to the layer that reads values what it loses with the channels that go, as
/// far as those that stay can stand for them over `samples` images (least squares).
void compensate_values(TrainContext& context, const Seats& seats, const Cut& cut,
                       const Settings& settings);

}  // namespace ablate::methods::channel_pruning
