#include "methods/channel_pruning.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/example_vit.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate::methods::channel_pruning {
namespace {

/// Automatic channel pruning (Lee and Hwang, arXiv 2405.20867): a learned score decides for every
/// hidden channel of attentions and MLPs whether it takes part, under a budget of
/// multiply-accumulates; then what does not is cut away and the rest trained on.
class ChannelPruning final : public Method {
 public:
  explicit ChannelPruning(Params& params) : settings_(Settings::read(params)) {}

  void check(const RunOutline& run) const override {
    choose_seats(run.base, settings_);
    const bool leaves = search_steps(run.length) < run.length.total_steps;
    if (settings_.reweighting == Reweighting::LeastSquares && run.length.total_steps > 0 &&
        settings_.criterion == Criterion::Indicator && !leaves) {
      throw SpecError(
          "methods.channel_pruning.reweight: \"least_squares\" looks at data when the search ends; "
          "let search_epochs end before the run does");
    }
    if (search_steps(run.length) > run.length.total_steps) {
      throw SpecError(cat("methods.channel_pruning.search_epochs: ", settings_.search_epochs,
                          " epochs of search in a run of ",
                          run.length.total_steps / run.length.steps_per_epoch));
    }
  }

  void apply(TrainContext& context) override;
  void between_steps(TrainContext& context) override;
  at::Tensor in_step(TrainContext& context, at::Tensor loss) override;
  void on_epoch(TrainContext& context, EpochEdge edge) override;
  void finalize(Surgeon& surgeon) override;
  bool settled() const override { return !searching_; }
  nlohmann::json save() const override;
  void load(const nlohmann::json& state) override;

 private:
  std::int64_t search_steps(const RunLength& run) const;
  Seats seats(Surgeon& surgeon) const;
  void begin_search(TrainContext& context, const Seats& seats);
  void weigh(TrainContext& context, double keep);
  double aimed_at(std::int64_t step, std::int64_t steps) const;
  Cut planned(Surgeon& surgeon, const Seats& seats) const;
  void perform(Surgeon& surgeon, const Cut& cut) const;
  void end_search(TrainContext& context);
  void report(TrainContext& context, const Cut& cut) const;

  Settings settings_;
  bool searching_ = false;
  double dense_ = 0.0;  // multiply-accumulates before
  ChannelCosts costs_;
  BudgetPenalty penalty_;
};

std::int64_t ChannelPruning::search_steps(const RunLength& run) const {
  const auto steps = static_cast<double>(run.total_steps);
  const double wanted = settings_.search_epochs > 0
                            ? settings_.search_epochs * static_cast<double>(run.steps_per_epoch)
                            : 0.1 * steps;
  return std::max<std::int64_t>(std::llround(wanted), run.total_steps > 0 ? 1 : 0);
}

Seats ChannelPruning::seats(Surgeon& surgeon) const {
  for (const Edit& edit : surgeon.edits()) {
    if (const auto* gates = std::get_if<AttachGates>(&edit)) {
      return find_seats(surgeon.model(), gates->seats);
    }
  }
  check_failed("gates are attached while channels are searched for", "");
}

void ChannelPruning::apply(TrainContext& context) {
  Surgeon& surgeon = context.surgeon();
  Seats chosen = choose_seats(surgeon.model(), settings_);
  const ChannelCosts before = costs_of(surgeon.model(), chosen, context.macs());
  std::vector<double> all;
  for (const auto& sites : chosen.sites) {
    all.push_back(static_cast<double>(sites.front().group->channels()));
  }
  dense_ = before.total(all);
  attach_reweighting(context, chosen, settings_.reweighting);
  costs_ = costs_of(surgeon.model(), chosen, context.macs());
  if (settings_.criterion == Criterion::Indicator) return begin_search(context, chosen);
  const Cut cut = plan_cut(chosen, baseline_scores(context, chosen, settings_), costs_,
                           settings_.target * dense_, settings_);
  if (settings_.reweighting == Reweighting::LeastSquares) {
    compensate_values(context, chosen, cut, settings_);
  }
  perform(surgeon, cut);
  report(context, cut);
}

void ChannelPruning::begin_search(TrainContext& context, const Seats& chosen) {
  Surgeon& surgeon = context.surgeon();
  const SeatValues start = starting_scores(context, chosen, settings_);
  surgeon.apply(AttachGates{chosen.places, settings_.gate_params});
  const ChannelGates& gates = *surgeon.model().channel_gates();
  for (std::size_t i = 0; i < start.size(); ++i) gates.scores(i).copy_(start[i]);
  searching_ = true;
  weigh(context, 0.0);
  if (context.epochs() == 0) return end_search(context);
  planned(surgeon, chosen);  // refused now when the budget cannot be met
}

/// Similarities of the model as it is now; `keep` of the old ones stays.
void ChannelPruning::weigh(TrainContext& context, double keep) {
  const ChannelGates& gates = *context.surgeon().model().channel_gates();
  const SeatValues fresh = similarity_factors(context, seats(context.surgeon()), settings_);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    const at::Tensor weights = gates.weights(i);
    const at::Tensor now = fresh[i].to(weights.options());
    weights.copy_(keep == 0.0 ? now : weights * keep + now * (1.0 - keep));
  }
}

/// Share of the dense cost that step `step` of a search aims at: it falls from 1 to the target.
double ChannelPruning::aimed_at(std::int64_t step, std::int64_t steps) const {
  const double ramp = settings_.ramp * static_cast<double>(steps);
  const double done = ramp > 0 ? std::min(1.0, static_cast<double>(step + 1) / ramp) : 1.0;
  return 1.0 - (1.0 - settings_.target) * done;
}

void ChannelPruning::between_steps(TrainContext& context) {
  if (!searching_) return;
  const std::int64_t steps = search_steps(context.length()), step = context.step();
  if (step >= steps) return end_search(context);
  Model& model = context.surgeon().model();
  const double aim = aimed_at(step, steps);
  model.channel_gates()->budget().fill_(aim);
  context.metric("channel_pruning/aim", aim);
  const bool due = step > 0 && step % settings_.similarity_every == 0;
  if (due && settings_.similarity.source != SimilaritySource::None) {
    weigh(context, settings_.similarity_decay);
  }
  if (!penalty_.defined()) {
    penalty_ = BudgetPenalty(costs_, dense_, *model.channel_gates(), settings_);
  }
}

at::Tensor ChannelPruning::in_step(TrainContext& context, at::Tensor loss) {
  if (!searching_) return loss;
  ChannelGates& gates = *context.surgeon().model().channel_gates();
  return loss + penalty_.of(gates.take_counts(), gates.budget());
}

/// Where the search is, for curves: what the network costs, and the share of its channels that the
/// poorest head keeps.
void ChannelPruning::on_epoch(TrainContext& context, EpochEdge edge) {
  if (!searching_ || edge != EpochEdge::End) return;
  const at::NoGradGuard no_grad;
  ChannelGates& gates = *context.surgeon().model().channel_gates();
  const std::vector<at::Tensor> each = gates.forward();
  std::vector<double> kept;
  double least = 1.0;
  for (std::size_t i = 0; i < each.size(); ++i) {
    kept.push_back(each[i].sum().item<double>());
    const at::Tensor heads = each[i].view({gates.seats()[i].heads, -1});
    least = std::min(least, heads.mean(1).min().item<double>());
  }
  context.metric("channel_pruning/macs", costs_.total(kept) / dense_);
  context.metric("channel_pruning/least_kept", least);
}

Cut ChannelPruning::planned(Surgeon& surgeon, const Seats& seats) const {
  const ChannelGates& gates = *surgeon.model().channel_gates();
  SeatValues scores;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    scores.push_back(gates.scores(i) * gates.weights(i));
  }
  return plan_cut(seats, scores, costs_, settings_.target * dense_, settings_);
}

void ChannelPruning::perform(Surgeon& surgeon, const Cut& cut) const {
  if (surgeon.model().channel_gates()) surgeon.apply(DetachGates{});
  for (const KeepChannels& edit : cut.edits) surgeon.apply(edit);
}

void ChannelPruning::end_search(TrainContext& context) {
  Surgeon& surgeon = context.surgeon();
  const Seats found = seats(surgeon);
  const Cut cut = planned(surgeon, found);
  if (settings_.reweighting == Reweighting::LeastSquares) {
    compensate_values(context, found, cut, settings_);
  }
  perform(surgeon, cut);
  searching_ = false;
  penalty_ = {};
  report(context, cut);
}

/// Also makes sure that all ranks cut alike.
void ChannelPruning::report(TrainContext& context, const Cut& cut) const {
  nlohmann::json body{
      {"macs", cut.macs}, {"dense_macs", dense_}, {"kept", nlohmann::json::array()}};
  std::string all;
  for (const KeepChannels& edit : cut.edits) {
    body["kept"].push_back(
        {{"block", edit.block}, {"group", edit.group}, {"channels", edit.channels.size()}});
    all += to_json(edit).dump();
  }
  const std::string mine = hash128_hex(all);
  for (const std::string& theirs : context.communicator().all_gather(mine)) {
    ABLATE_CHECK(theirs == mine, "ranks decided to cut different channels");
  }
  context.metric("channel_pruning/cut_macs", cut.macs / dense_);
  context.event("channels_cut", body);
}

void ChannelPruning::finalize(Surgeon& surgeon) {
  if (searching_) {
    perform(surgeon, planned(surgeon, seats(surgeon)));
    searching_ = false;
    penalty_ = {};
  }
  fold_reweighting(surgeon);
}

nlohmann::json ChannelPruning::save() const {
  return {{"searching", searching_}, {"dense_macs", dense_}, {"costs", costs_.to_json()}};
}

void ChannelPruning::load(const nlohmann::json& state) {
  searching_ = state.at("searching").get<bool>();
  dense_ = state.at("dense_macs").get<double>();
  costs_ = ChannelCosts::from_json(state.at("costs"));
}

const Registry<MethodInfo>::Add added{{
    .name = "channel_pruning",
    .summary = "removes channels of attentions and MLPs by learned scores under a budget of MACs",
    .paper = "Lee and Hwang, Automatic Channel Pruning for Multi-Head Attention, arXiv 2405.20867",
    .semantics = 1,
    .phase = Phase::Pruning,
    .needs = {Slot::ChannelGroups},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "all formulas (similarity weights, balance of heads, reweighting, starting "
                      "scores, budget term, schedule): the paper's own were not available",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<ChannelPruning>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "channel_pruning"
target = 0.7
search_epochs = 1
lr_factor = 20.0
samples = 32)",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'channel_pruning'\ntarget = 1.0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::channel_pruning
