#include <algorithm>

#include "methods/channel_pruning.h"
#include "methods/models/reweight.h"

namespace ablate::methods::channel_pruning {
namespace {

constexpr std::int64_t kReweightShare = 16, kLeastReweight = 8;  // hidden units: C / 16, at least 8
constexpr double kReweightStd = 0.02;

constexpr double kRidge = 1e-6;  // of the mean diagonal: activations can be linearly dependent

/// Columns (n) of those in 0 .. channels - 1 that are not among `kept`.
at::Tensor others_of(const std::vector<std::int64_t>& kept, std::int64_t channels) {
  std::vector<std::int64_t> others;
  for (std::int64_t i = 0; i < channels; ++i) {
    if (!std::ranges::binary_search(kept, i)) others.push_back(i);
  }
  return at::tensor(others, at::kLong);
}

/// A (removed, kept) with o_removed ~ A o_kept for activations o with Gram matrix G: G_rk G_kk^-1.
at::Tensor regression(const at::Tensor& gram, const at::Tensor& removed, const at::Tensor& kept) {
  const at::Tensor known = gram.index_select(0, kept).index_select(1, kept);
  const at::Tensor cross = gram.index_select(0, kept).index_select(1, removed);
  const double ridge = kRidge * known.diagonal().mean().item<double>();
  const at::Tensor stable =
      known + at::eye(known.size(0), known.options()) * std::max(ridge, 1e-30);
  return at::linalg_solve(stable, cross).t();
}

}  // namespace

void attach_reweighting(TrainContext& context, const Seats& seats, Reweighting kind) {
  if (kind == Reweighting::None || kind == Reweighting::LeastSquares) return;
  const bool dynamic = kind == Reweighting::Dynamic;
  const std::string name = dynamic ? "dynamic" : kind == Reweighting::Static ? "static" : "head";
  for (const auto& sites : seats.sites) {
    for (const ChannelSite& site : sites) {
      if (site.group->role != ChannelRole::Value) continue;
      const std::int64_t hidden =
          dynamic ? std::max(kLeastReweight, site.group->channels() / kReweightShare) : 0;
      context.surgeon().apply(AttachReweight{site.place.block, site.place.group, name, hidden});
    }
  }
  if (!dynamic) return;
  for (auto& item : context.surgeon().model().named_parameters()) {
    const bool drawn =
        item.key().find(".reweight_") != std::string::npos && item.key().ends_with(".fc1.weight");
    if (drawn) fill_truncated_normal(item.value(), context.seed(), item.key(), kReweightStd);
  }
}

void fold_reweighting(Surgeon& surgeon) {
  for (const ChannelSite& site : channel_sites(surgeon.model(), /*retiring=*/true)) {
    const auto& module = site.group->reweight;
    if (!module || !module->constant_factor(*site.group).defined()) continue;
    surgeon.apply(FoldReweight{site.place.block, site.place.group});
  }
}

void compensate_values(TrainContext& context, const Seats& seats, const Cut& cut,
                       const Settings& settings) {
  std::vector<ChannelSite> sites;
  for (const auto& seat : seats.sites) {
    for (const ChannelSite& site : seat) {
      if (site.group->role == ChannelRole::Value) sites.push_back(site);
    }
  }
  const auto statistics =
      channel_statistics(context, sites, settings.split, settings.samples, {.whole_grams = true});
  const at::NoGradGuard no_grad;
  for (const ChannelSite& site : sites) {
    const auto edit = std::ranges::find_if(cut.edits, [&](const KeepChannels& e) {
      return ChannelPlace{e.block, e.group} == site.place;
    });
    if (edit == cut.edits.end()) continue;
    const at::Tensor kept = at::tensor(edit->channels, at::kLong);
    const at::Tensor removed = others_of(edit->channels, site.group->channels());
    // On the host: small, and the same bits wherever the statistics come from.
    const at::Tensor gram = statistics.at(site.group).whole_gram.to(at::kCPU);
    at::Tensor weight = site.owner->reader(*site.group);
    const at::Tensor columns = weight.to(at::kCPU, at::kDouble);
    const at::Tensor change =
        at::matmul(columns.index_select(1, removed), regression(gram, removed, kept));
    weight.copy_(columns.index_copy(1, kept, columns.index_select(1, kept) + change));
  }
}

}  // namespace ablate::methods::channel_pruning
