#include <algorithm>
#include <map>
#include <set>

#include "methods/channel_pruning.h"
#include "runner/core/error.h"

namespace ablate::methods::channel_pruning {
namespace {

bool is_wanted(const ChannelGroup& group, const Settings& settings) {
  switch (group.role) {
    case ChannelRole::QueryKey:
      return settings.qk;
    case ChannelRole::Value:
      return settings.v;
    case ChannelRole::Hidden:
      return settings.mlp;
  }
  check_failed("known role", group.name);
}

/// The seat of queries and keys that values of the same shape in the same block share.
ChannelSeat* tied_seat(std::vector<ChannelSeat>& seats, const std::vector<ChannelSite>& sites,
                       const ChannelSite& values) {
  for (const ChannelSite& site : sites) {
    const bool partner = site.owner == values.owner && site.group->role == ChannelRole::QueryKey &&
                         site.group->heads == values.group->heads &&
                         site.group->width == values.group->width;
    if (!partner) continue;
    for (ChannelSeat& seat : seats) {
      if (seat.places.size() == 1 && seat.places.front() == site.place) return &seat;
    }
  }
  return nullptr;
}

}  // namespace

Seats choose_seats(Model& model, const Settings& settings) {
  std::vector<ChannelSeat> seats;
  const std::vector<ChannelSite> sites = channel_sites(model);
  for (const ChannelSite& site : sites) {
    if (!is_wanted(*site.group, settings)) continue;
    const bool values = site.group->role == ChannelRole::Value;
    if (ChannelSeat* tied = values && settings.tie_qkv ? tied_seat(seats, sites, site) : nullptr) {
      tied->places.push_back(site.place);
    } else {
      seats.push_back({{site.place}, values && settings.tie_v_index});
    }
  }
  if (seats.empty()) {
    throw SpecError(
        "methods.channel_pruning: the model has no channels of the kinds that are to be pruned");
  }
  return find_seats(model, seats);
}

Seats find_seats(Model& model, const std::vector<ChannelSeat>& places) {
  Seats seats{places, {}};
  const std::vector<ChannelSite> known = channel_sites(model, /*retiring=*/true);
  for (const ChannelSeat& seat : places) {
    std::vector<ChannelSite>& sites = seats.sites.emplace_back();
    for (const ChannelPlace& place : seat.places) {
      const auto found = std::ranges::find(known, place, &ChannelSite::place);
      ABLATE_CHECK(found != known.end(), "block ", place.block, " lost its group ", place.group);
      sites.push_back(*found);
    }
  }
  return seats;
}

ChannelCosts costs_of(Model& model, const Seats& seats, std::int64_t macs) {
  std::map<const ChannelGroup*, std::size_t> seat_of;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    for (const ChannelSite& site : seats.sites[i]) seat_of[site.group] = i;
  }
  std::set<const ChannelGroup*> staying;
  for (const ChannelSite& site : channel_sites(model)) staying.insert(site.group);
  ChannelCosts costs{.fixed = static_cast<double>(macs), .terms = {}};
  for (const auto& [group, other, each] : probe_channel_costs(model)) {
    const auto channels = static_cast<double>(group->channels());
    const auto others = other ? static_cast<double>(other->channels()) : 1.0;
    if (!staying.contains(group)) {
      costs.fixed -= each * channels * others;
      continue;
    }
    std::vector<std::size_t> chosen;
    double factor = each;
    for (const ChannelGroup* part : {group, other}) {
      if (!part) continue;
      if (const auto found = seat_of.find(part); found != seat_of.end()) {
        chosen.push_back(found->second);
      } else {
        factor *= static_cast<double>(part->channels());
      }
    }
    if (chosen.empty()) continue;
    costs.fixed -= each * channels * others;
    costs.terms.push_back(
        {chosen[0], chosen.size() > 1 ? std::optional(chosen[1]) : std::nullopt, factor});
  }
  return costs;
}

namespace {

SeatScores host_scores(const at::Tensor& values, std::int64_t heads) {
  SeatScores scores;
  scores.heads = heads;
  const at::Tensor rows = values.detach().to(at::kCPU, at::kDouble).contiguous();
  for (std::int64_t row = 0; row < rows.size(0); ++row) {
    const double* data = rows[row].const_data_ptr<double>();
    scores.rows.emplace_back(data, data + rows.size(1));
  }
  return scores;
}

}  // namespace

Cut plan_cut(const Seats& seats, const SeatValues& scores, const ChannelCosts& costs, double budget,
             const Settings& settings) {
  std::vector<SeatScores> rows;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    rows.push_back(host_scores(scores[i], seats.sites[i].front().group->heads));
  }
  const SeatWidths widths = snap_to_budget(rows, costs, settings.rule, budget, settings.allocation);
  Cut cut{.edits = {}, .macs = costs.total(kept_by(rows, widths))};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (widths[i] == rows[i].width()) continue;
    const auto channels = kept_channels(rows[i], settings.rule, widths[i]);
    for (const ChannelPlace& place : seats.places[i].places) {
      cut.edits.push_back({place.block, place.group, channels});
    }
  }
  return cut;
}

}  // namespace ablate::methods::channel_pruning
