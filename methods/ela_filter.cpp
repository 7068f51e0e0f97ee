#include "methods/ela_filter.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runner/core/error.h"

namespace ablate::methods::ela {

std::vector<Candidate> candidates_of(const std::vector<int>& stage_lengths, int leave_out) {
  std::vector<Candidate> candidates;
  int block = 0;
  for (std::size_t stage = 0; stage < stage_lengths.size(); ++stage) {
    for (int position = 0; position < stage_lengths[stage]; ++position, ++block) {
      if (position < leave_out) continue;
      candidates.push_back(
          {.block = block, .stage = static_cast<int>(stage), .position = position});
    }
  }
  return candidates;
}

MaskFilter::MaskFilter(FilterSettings settings, std::vector<Candidate> candidates)
    : settings_(settings),
      candidates_(std::move(candidates)),
      skipped_(candidates_.size()),
      low_(candidates_.size()),
      high_(candidates_.size()) {}

void MaskFilter::update(const Mapping& mapping, const std::vector<std::size_t>& which,
                        const std::vector<LayerMoments>& moments) {
  if (!mapping.decides) return;
  ABLATE_CHECK(mapping.flagged.size() == which.size() && moments.size() == which.size());
  Scores scores(candidates_.size(), -std::numeric_limits<double>::infinity());
  for (std::size_t entry = 0; entry < which.size(); ++entry) {
    const std::size_t i = which[entry];
    scores[i] = mapping.score[entry];
    low_[i] = mapping.flagged[entry] ? low_[i] + 1 : 0;
    high_[i] = mapping.clear[entry] ? high_[i] + 1 : 0;
    if (!skipped_[i] && low_[i] >= settings_.patience) skipped_[i] = true;
    if (skipped_[i] && high_[i] >= settings_.patience) skipped_[i] = false;
    if (settings_.never_above > 0.0 && moments[entry].mean > settings_.never_above) {
      skipped_[i] = false;
    }
  }
  guard(scores);
}

void MaskFilter::assign(const std::vector<bool>& skipped) {
  ABLATE_CHECK(skipped.size() == candidates_.size());
  skipped_ = skipped;
}

std::int64_t MaskFilter::count() const { return std::ranges::count(skipped_, true); }

void MaskFilter::restore(std::vector<bool> skipped, std::vector<int> low, std::vector<int> high) {
  const std::size_t size = candidates_.size();
  ABLATE_CHECK(skipped.size() == size && low.size() == size && high.size() == size);
  skipped_ = std::move(skipped);
  low_ = std::move(low);
  high_ = std::move(high);
}

/// Revives what is too much: over all candidates, then among neighbours.
void MaskFilter::guard(const Scores& scores) {
  const auto size = static_cast<double>(candidates_.size());
  const auto most = static_cast<std::int64_t>(std::floor(settings_.most_skipped * size));
  std::vector<std::size_t> all(candidates_.size());
  std::iota(all.begin(), all.end(), 0);
  while (count() > most) revive_largest(all, scores);
  if (settings_.in_a_row == 0) return;
  for (;;) {
    const auto runs = runs_of_neighbours();
    const auto too_long = std::ranges::find_if(
        runs, [&](const auto& run) { return std::ssize(run) > settings_.in_a_row; });
    if (too_long == runs.end()) return;
    revive_largest(*too_long, scores);
  }
}

std::vector<std::vector<std::size_t>> MaskFilter::runs_of_neighbours() const {
  std::vector<std::vector<std::size_t>> runs;
  bool open = false;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (i > 0 && candidates_[i].stage != candidates_[i - 1].stage) open = false;
    if (skipped_[i] && !open) runs.emplace_back();
    if (skipped_[i]) runs.back().push_back(i);
    open = skipped_[i];
  }
  return runs;
}

/// Of those that are skipped; of equal ones the last.
void MaskFilter::revive_largest(const std::vector<std::size_t>& among, const Scores& scores) {
  std::optional<std::size_t> largest;
  for (const std::size_t i : among) {
    if (skipped_[i] && (!largest || scores[i] >= scores[*largest])) largest = i;
  }
  skipped_[largest.value()] = false;
}

void MomentAverage::add(const std::vector<std::optional<LayerMoments>>& epoch) {
  ABLATE_CHECK(epoch.size() == layers_.size());
  for (std::size_t i = 0; i < epoch.size(); ++i) {
    if (!epoch[i]) continue;
    if (!layers_[i]) {
      layers_[i] = epoch[i];
      continue;
    }
    LayerMoments& average = *layers_[i];
    const auto blend = [&](double LayerMoments::*part) {
      average.*part = memory_ * average.*part + (1.0 - memory_) * *epoch[i].*part;
    };
    blend(&LayerMoments::mean);
    blend(&LayerMoments::square);
    blend(&LayerMoments::bounded);
    blend(&LayerMoments::bounded_square);
  }
}

}  // namespace ablate::methods::ela
