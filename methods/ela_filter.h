#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "methods/ela_mapping.h"

// What makes a sequence of decisions steady: averages over epochs, patience, hysteresis, guards.

namespace ablate::methods::ela {

/// A block that may be skipped: all but the first of each stage (the second, too, where divergences
/// compare the support that rows share).
struct Candidate {
  int block = 0;  ///< number among the model's layer sites
  int stage = 0;
  int position = 0;  ///< in its stage, from 0
  bool operator==(const Candidate&) const = default;
};

/// Blocks of stages of these lengths, in order, without the first `leave_out` of each.
std::vector<Candidate> candidates_of(const std::vector<int>& stage_lengths, int leave_out);

struct FilterSettings {
  int patience = 1;           ///< decisions in a row before a layer is skipped, or revived
  double most_skipped = 1.0;  ///< share of the candidates
  double never_above = 0.0;   ///< layers whose mean divergence is larger stay; 0: off
  std::int64_t in_a_row = 0;  ///< most skipped neighbours of a stage; 0: off
};

/// What is skipped, over time.
class MaskFilter {
 public:
  MaskFilter(FilterSettings settings, std::vector<Candidate> candidates);

  /// Takes one decision into account. `which[i]` is the candidate of entry i of the mapping;
  /// candidates that were not measured stay as they are. `moments` as `which`.
  void update(const Mapping& mapping, const std::vector<std::size_t>& which,
              const std::vector<LayerMoments>& moments);
  /// Takes a mask as it is, without memory and guards.
  void assign(const std::vector<bool>& skipped);

  const std::vector<bool>& skipped() const { return skipped_; }
  std::int64_t count() const;

  // Decisions in a row that flagged, or cleared, each candidate: for checkpoints.
  const std::vector<int>& low_runs() const { return low_; }
  const std::vector<int>& high_runs() const { return high_; }
  void restore(std::vector<bool> skipped, std::vector<int> low, std::vector<int> high);

 private:
  /// Score of each candidate in the decision under way; minus infinity: not measured.
  using Scores = std::vector<double>;

  void guard(const Scores& scores);
  std::vector<std::vector<std::size_t>> runs_of_neighbours() const;
  void revive_largest(const std::vector<std::size_t>& among, const Scores& scores);

  FilterSettings settings_;
  std::vector<Candidate> candidates_;
  std::vector<bool> skipped_;
  std::vector<int> low_, high_;
};

/// Exponential average of the moments over epochs: `memory` is the weight of what was before.
class MomentAverage {
 public:
  MomentAverage(double memory, std::size_t layers) : memory_(memory), layers_(layers) {}

  /// Layers without a measurement keep what they have.
  void add(const std::vector<std::optional<LayerMoments>>& epoch);
  /// Nothing for a layer that was never measured.
  const std::vector<std::optional<LayerMoments>>& layers() const { return layers_; }
  void restore(std::vector<std::optional<LayerMoments>> layers) { layers_ = std::move(layers); }

 private:
  double memory_;
  std::vector<std::optional<LayerMoments>> layers_;
};

}  // namespace ablate::methods::ela
