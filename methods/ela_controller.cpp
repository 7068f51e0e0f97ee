#include "methods/ela_controller.h"

#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate::methods::ela {
namespace {

/// Candidates in the order in which a choice takes them.
std::vector<std::size_t> order_of(const ControllerSettings& settings,
                                  const std::vector<Candidate>& candidates, std::uint64_t seed) {
  const Choice choice = settings.choice;
  std::vector<std::size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), 0);
  if (choice == Choice::Last) std::ranges::reverse(order);
  if (choice == Choice::Given) {
    std::erase_if(order, [&](std::size_t i) {
      return std::ranges::find(settings.layers, candidates[i].block) == settings.layers.end();
    });
  }
  if (choice == Choice::EveryOther) {
    std::erase_if(order, [&](std::size_t i) { return candidates[i].position % 2 == 0; });
    // Some of them are spread over the stages.
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return candidates[i].position; });
  }
  if (choice == Choice::Random && !order.empty()) {
    const Permutation shuffled(order.size(), seed, Purpose::Method,
                               hash64(cat("ela.random/", settings.draw)));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = shuffled(i);
  }
  return order;
}

nlohmann::json to_json(const std::optional<LayerMoments>& layer) {
  if (!layer) return nullptr;
  return {layer->mean, layer->square, layer->bounded, layer->bounded_square};
}

}  // namespace

std::int64_t most_skippable(const ControllerSettings& settings,
                            const std::vector<Candidate>& candidates) {
  return std::ssize(order_of(settings, candidates, 0));
}

Controller::Controller(const ControllerSettings& settings, std::vector<Candidate> candidates,
                       std::uint64_t seed)
    : settings_(settings),
      candidates_(std::move(candidates)),
      seed_(seed),
      filter_(settings.filter, candidates_),
      average_(settings.memory, candidates_.size()),
      measured_(candidates_.size()) {}

void Controller::observe(const std::vector<std::optional<LayerMoments>>& epoch) {
  average_.add(epoch);
  for (std::size_t i = 0; i < epoch.size(); ++i) measured_[i] = epoch[i].has_value();
}

Decision Controller::decide(std::int64_t epoch, bool last) {
  Decision decision;
  decision.z.resize(candidates_.size());
  decision.score.resize(candidates_.size());
  const std::vector<bool> before = filter_.skipped();
  if (settings_.choice == Choice::Mapping) {
    choose_by_divergence(epoch, last, decision);
  } else {
    choose_unseen();
  }
  for (std::size_t i = 0; i < before.size(); ++i) decision.flips += before[i] != skipped()[i];
  return decision;
}

void Controller::choose_unseen() {
  std::vector<std::size_t> order = order_of(settings_, candidates_, seed_);
  if (settings_.skip > 0) {
    ABLATE_CHECK(settings_.skip <= std::ssize(order), settings_.skip, " of ", order.size());
    order.resize(static_cast<std::size_t>(settings_.skip));
  }
  std::vector<bool> mask(candidates_.size());
  for (const std::size_t i : order) mask[i] = true;
  filter_.assign(mask);
}

/// Candidates that the last epoch measured, those that are held against each other together.
std::vector<std::vector<std::size_t>> Controller::measured_groups() const {
  std::vector<std::vector<std::size_t>> groups;
  int stage = -1;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (!measured_[i]) continue;
    if (groups.empty() || (settings_.each_stage && candidates_[i].stage != stage)) {
      groups.emplace_back();
    }
    stage = candidates_[i].stage;
    groups.back().push_back(i);
  }
  return groups;
}

Mapping Controller::map_group(const std::vector<std::size_t>& group, Decision& decision) const {
  std::vector<LayerMoments> layers;
  for (const std::size_t i : group) layers.push_back(*moments()[i]);
  const Mapping mapping = map_divergences(settings_.mapping, layers);
  if (!mapping.decides) return mapping;
  for (std::size_t entry = 0; entry < group.size(); ++entry) {
    if (!mapping.z.empty()) decision.z[group[entry]] = mapping.z[entry];
    decision.score[group[entry]] = mapping.score[entry];
  }
  if (!mapping.z.empty()) decision.fits.push_back({mapping.fit, mapping.tau});
  return mapping;
}

void Controller::choose_by_divergence(std::int64_t epoch, bool last, Decision& decision) {
  Mapping all;
  std::vector<std::size_t> which;
  std::vector<LayerMoments> layers;
  for (const auto& group : measured_groups()) {
    const Mapping mapping = map_group(group, decision);
    if (!mapping.decides) continue;
    all.decides = true;
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(all.score, mapping.score);
    append(all.flagged, mapping.flagged);
    append(all.clear, mapping.clear);
    append(which, group);
    for (const std::size_t i : group) layers.push_back(*moments()[i]);
  }
  if (settings_.mapping.rule == Rule::Bernoulli) {
    draw(all, which, epoch, last);
  } else {
    filter_.update(all, which, layers);
  }
}

/// Each layer by itself with probability 1 - score; at last the more probable of both.
void Controller::draw(const Mapping& mapping, const std::vector<std::size_t>& which,
                      std::int64_t epoch, bool last) {
  std::vector<bool> mask = filter_.skipped();
  RandomStream random(seed_, Purpose::Method, hash64(cat("ela.soft/", settings_.draw, "/", epoch)));
  for (std::size_t entry = 0; entry < which.size(); ++entry) {
    const double probability = 1.0 - mapping.score[entry];
    mask[which[entry]] = last ? probability > 0.5 : random.chance(probability);
  }
  filter_.assign(mask);
}

nlohmann::json Controller::save() const {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& layer : moments()) layers.push_back(to_json(layer));
  return {{"skipped", filter_.skipped()},
          {"low", filter_.low_runs()},
          {"high", filter_.high_runs()},
          {"moments", std::move(layers)}};
}

void Controller::load(const nlohmann::json& state) {
  filter_.restore(state.at("skipped").get<std::vector<bool>>(),
                  state.at("low").get<std::vector<int>>(),
                  state.at("high").get<std::vector<int>>());
  std::vector<std::optional<LayerMoments>> layers;
  for (const auto& row : state.at("moments")) {
    layers.emplace_back();
    if (row.is_null()) continue;
    layers.back() = LayerMoments{row.at(0), row.at(1), row.at(2), row.at(3)};
  }
  average_.restore(std::move(layers));
}

}  // namespace ablate::methods::ela
