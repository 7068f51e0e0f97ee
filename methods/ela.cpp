#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/ela_controller.h"
#include "methods/ela_report.h"
#include "methods/ela_statistics.h"
#include "methods/layer_method.h"
#include "methods/mrla.h"
#include "runner/core/error.h"

namespace ablate::methods::ela {
namespace {

/// Layer attention whose retrievals are skipped where they differ little from those of the block
/// before: warm-up with all of them, a search in which masks change between epochs, and a frozen
/// rest. Divergences are summed up on the device in every step until then.
class Ela final : public Method {
 public:
  explicit Ela(Params& params);

  void check(const RunOutline& run) const override;
  void apply(TrainContext& context) override;
  void on_epoch(TrainContext& context, EpochEdge edge) override;
  void between_steps(TrainContext& context) override { prepare(context); }
  void before_pass(TrainContext& context, ForwardState& state) override;
  void after_pass(TrainContext& context, const ForwardState& state) override;
  void finalize(Surgeon& surgeon) override;
  bool settled() const override { return frozen_; }

  void before_save(TrainContext& context) override;
  nlohmann::json save() const override;
  void load(const nlohmann::json& state) override;

 private:
  std::string module() const { return gates_ ? "mrla_light" : "mrla_base"; }
  bool measures() const { return settings_.needs_divergences() && !frozen_; }
  std::vector<Candidate> candidates(const std::vector<LayerGroup>& groups) const;
  void check_places(Model& model) const;
  void skip_at_once(TrainContext& context);
  void prepare(TrainContext& context);
  void restore_sums(TrainContext& context);
  std::optional<EpochStatistics> take_epoch(TrainContext& context);
  void apply_mask(Surgeon& surgeon) const;
  std::vector<Edit> deletions(Model& model) const;
  void freeze(TrainContext& context);

  bool gates_;
  LayerGroups groups_;
  Value module_settings_;
  Settings settings_;
  std::optional<Controller> controller_;
  std::optional<DivergenceSums> sums_;
  RetrievalRecord record_;
  bool frozen_ = false;
  // A checkpoint's: before the run's parts exist, and of all ranks for the next one.
  nlohmann::json loaded_;
  at::Tensor gathered_;
};

/// The settings that `read` reads, resolved and by themselves.
Value settings_read_by(Params& params, const std::function<void()>& read) {
  const Value before = params.resolved();
  read();
  Value own = params.resolved();
  for (const auto& [key, value] : before.as_table()) own.as_table().erase(key);
  return own;
}

Ela::Ela(Params& params)
    : gates_(params.choice("variant", "base", {"base", "light"},
                           "layer attention: softmax over blocks, or the gated recurrence") ==
             "light"),
      groups_(LayerGroups::read(params)),
      module_settings_(
          settings_read_by(params, [&] { MrlaOptions::read(params, /*relu=*/!gates_); })),
      settings_(Settings::read(params, gates_)) {}

/// The first block of a group begins its cache, so it always retrieves.
std::vector<Candidate> Ela::candidates(const std::vector<LayerGroup>& groups) const {
  std::vector<Candidate> all;
  for (std::size_t stage = 0; stage < groups.size(); ++stage) {
    for (int i = settings_.leave_out(); i < groups[stage].count; ++i) {
      all.push_back(
          {.block = groups[stage].first + i, .stage = static_cast<int>(stage), .position = i});
    }
  }
  return all;
}

void Ela::check(const RunOutline& run) const {
  if (run.length.total_steps > 0)
    settings_.plan(run.length.total_steps / run.length.steps_per_epoch);
  check_places(run.base);
}

void Ela::check_places(Model& model) const {
  const auto places = candidates(groups_.of(model, "methods.ela"));
  const std::int64_t most = most_skippable(settings_.controller, places);
  if (most == 0 || settings_.controller.skip > most) {
    throw SpecError(cat("methods.ela: ", std::max<std::int64_t>(settings_.controller.skip, 1),
                        " layers to skip, but only ", most, " of ", model.layer_sites().size(),
                        " blocks can be: the first of each stage",
                        settings_.leave_out() == 2 ? " and the second" : "", " always stay"));
  }
}

void Ela::apply(TrainContext& context) {
  Surgeon& surgeon = context.surgeon();
  attach_layer_attention(surgeon, groups_.of(surgeon.model(), "methods.ela"), module(),
                         module_settings_, context.seed());
  check_places(surgeon.model());
  if (context.epochs() == 0) return skip_at_once(context);
  settings_.plan(context.epochs());
}

/// Where nothing is trained there is nothing to measure either.
void Ela::skip_at_once(TrainContext& context) {
  if (settings_.needs_divergences()) {
    throw SpecError(
        "methods.ela: which retrievals are skipped is found in training, and there is none here; "
        "name them by preset = \"given\" and layers = [...], choose a preset that does not look at "
        "divergences, or give the final/structure.json of a finished run");
  }
  prepare(context);
  controller_->decide(0, true);
  apply_mask(context.surgeon());
  freeze(context);
}

/// Makes what depends on the model, which a resumed run has only now.
void Ela::prepare(TrainContext& context) {
  if (frozen_ || controller_) return;
  Model& model = context.surgeon().model();
  const std::vector<LayerGroup> groups = groups_.of(model, "methods.ela");
  controller_.emplace(settings_.controller, candidates(groups), context.seed());
  if (!loaded_.is_null()) controller_->load(loaded_.at("controller"));
  if (!measures()) return;
  std::vector<std::vector<int>> stages;
  for (const LayerGroup& group : groups) {
    std::vector<int>& blocks = stages.emplace_back();
    for (int i = 0; i < group.count; ++i) blocks.push_back(group.first + i);
  }
  sums_.emplace(settings_.divergence, gates_, settings_.clip, std::move(stages),
                controller_->candidates(), model.parameters().front().device());
  restore_sums(context);
}

/// Each rank goes on with what it had; when there are other ranks now, the first takes all.
void Ela::restore_sums(TrainContext& context) {
  if (loaded_.is_null()) return;
  const auto rows = loaded_.at("sums").get<std::vector<std::vector<double>>>();
  const Communicator& world = context.communicator();
  at::Tensor mine = at::zeros({sums_->size()}, at::kDouble);
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    const bool own = std::ssize(rows) == world.size() ? static_cast<int>(rank) == world.rank()
                                                      : world.rank() == 0;
    if (own) mine += at::tensor(rows[rank], at::kDouble);
  }
  sums_->reset(mine);
}

void Ela::before_pass(TrainContext&, ForwardState& state) {
  if (!measures()) return;
  record_.shadow = settings_.shadow;
  state.retrievals = &record_;
}

void Ela::after_pass(TrainContext&, const ForwardState&) {
  if (!measures()) return;
  sums_->add(record_);
  record_.retrievals.clear();
}

/// What all ranks saw in the epoch that is over; the sums begin again.
std::optional<EpochStatistics> Ela::take_epoch(TrainContext& context) {
  if (!measures() || context.epoch() == 0) return std::nullopt;
  // Added up in the order of ranks, the same on each of them.
  const EpochStatistics epoch = sums_->read(sums_->gather(context.communicator()).sum(0));
  sums_->reset();
  controller_->observe(epoch.layers);
  return epoch;
}

void Ela::on_epoch(TrainContext& context, EpochEdge edge) {
  // Masks change when an epoch begins, so that what is evaluated at its end has been trained.
  if (edge == EpochEdge::End || frozen_) return;
  prepare(context);
  const SearchPlan plan = settings_.plan(context.epochs());
  const std::int64_t epoch = context.epoch();
  const std::optional<EpochStatistics> statistics = take_epoch(context);
  std::optional<Decision> decision;
  if (plan.decides(epoch)) decision = controller_->decide(epoch, epoch == plan.freeze);
  if (decision) apply_mask(context.surgeon());
  if (statistics || decision) {
    report(context, *controller_, statistics ? &*statistics : nullptr,
           decision ? &*decision : nullptr, epoch == plan.freeze);
  }
  if (epoch == plan.freeze) freeze(context);
}

void Ela::apply_mask(Surgeon& surgeon) const {
  const std::vector<LayerSite*> sites = surgeon.model().layer_sites();
  const std::vector<Candidate>& places = controller_->candidates();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const SkipMode wanted = controller_->skipped()[i] ? settings_.mode : SkipMode::None;
    const LayerSite* site = sites[static_cast<std::size_t>(places[i].block)];
    if (site->layer_attention()->skip() == wanted) continue;
    surgeon.apply(SkipRetrieval{places[i].block, wanted});
  }
}

/// Edits that delete what skipped blocks do not need any more.
std::vector<Edit> Ela::deletions(Model& model) const {
  std::vector<Edit> edits;
  const std::vector<LayerSite*> sites = model.layer_sites();
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const LayerAttention* attention = sites[i]->layer_attention();
    if (!attention || attention->reduced()) continue;
    const SkipMode mode = attention->skip();
    if (mode == SkipMode::None || mode == SkipMode::Recur) continue;  // they use all they have
    edits.push_back(DeleteSkipped{static_cast<int>(i)});
  }
  return edits;
}

/// From now on skipped branches are gone, and nothing is measured.
void Ela::freeze(TrainContext& context) {
  const std::vector<Edit> edits = deletions(context.surgeon().model());
  if (!edits.empty()) context.apply_neutral(edits);
  context.surgeon().renew();
  frozen_ = true;
}

void Ela::finalize(Surgeon& surgeon) {
  const std::vector<Edit> edits = deletions(surgeon.model());
  if (!edits.empty()) surgeon.apply_neutral(edits);
  frozen_ = true;
}

void Ela::before_save(TrainContext& context) {
  if (measures() && sums_) gathered_ = sums_->gather(context.communicator());
}

nlohmann::json Ela::save() const {
  nlohmann::json state{{"frozen", frozen_}};
  if (frozen_ || !controller_) return state;
  state["controller"] = controller_->save();
  state["sums"] = nlohmann::json::array();
  if (!gathered_.defined()) return state;
  for (std::int64_t rank = 0; rank < gathered_.size(0); ++rank) {
    const auto* row = gathered_[rank].const_data_ptr<double>();
    state["sums"].push_back(std::vector<double>(row, row + gathered_.size(1)));
  }
  return state;
}

void Ela::load(const nlohmann::json& state) {
  frozen_ = state.at("frozen").get<bool>();
  if (!frozen_ && state.contains("controller")) loaded_ = state;
}

const Registry<MethodInfo>::Add added{{
    .name = "ela",
    .summary = "layer attention that skips retrievals which differ little from their neighbour's",
    .paper = "Li and Huang, Enhancing Layer Attention Efficiency through Pruning Redundant "
             "Retrievals, arXiv 2503.06473",
    .semantics = 2,
    .phase = Phase::LayerAttention,
    .needs = {Slot::LayerAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction =
        "the paper's text beyond its abstract was not available: how rows are compared, the Beta "
        "quantile mapping, its schedule and what a skipped retrieval leaves are ours",
    .make = [](Params& params) -> std::unique_ptr<Method> { return std::make_unique<Ela>(params); },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = R"(name = "ela"
q = 1.0
most_skipped = 1.0
patience = 1
warmup_epochs = 1
freeze_epoch = 1)",
                               .model_params = "image_size = 16",
                               .idle_params = "name = 'ela'\npreset = 'top_m'\nskip = 0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::ela
