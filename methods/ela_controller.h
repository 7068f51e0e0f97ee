#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "methods/ela_settings.h"

namespace ablate::methods::ela {

/// The fit behind the scores of one group of candidates.
struct GroupFit {
  Beta beta;
  double tau = 0;  ///< bounded values up to it are below the quantile
};

/// What one decision came from, an entry for each candidate.
struct Decision {
  std::vector<std::optional<double>> z, score;  ///< nothing: not measured, or not looked at
  std::vector<GroupFit> fits;                   ///< of groups that were fitted
  std::int64_t flips = 0;                       ///< layers whose state changed
};

/// The most layers that these settings could skip.
std::int64_t most_skippable(const ControllerSettings& settings,
                            const std::vector<Candidate>& candidates);

/// Decides which retrievals are skipped, from nothing but its settings, the seed and what it is
/// told, so that ranks that are told the same decide the same.
class Controller {
 public:
  Controller(const ControllerSettings& settings, std::vector<Candidate> candidates,
             std::uint64_t seed);

  /// What an epoch told of each candidate.
  void observe(const std::vector<std::optional<LayerMoments>>& epoch);
  /// Takes a decision at the start of an epoch; the `last` one stays for good.
  Decision decide(std::int64_t epoch, bool last);

  const std::vector<Candidate>& candidates() const { return candidates_; }
  const std::vector<bool>& skipped() const { return filter_.skipped(); }
  /// Averages over epochs.
  const std::vector<std::optional<LayerMoments>>& moments() const { return average_.layers(); }

  nlohmann::json save() const;
  void load(const nlohmann::json& state);

 private:
  void choose_unseen();
  void choose_by_divergence(std::int64_t epoch, bool last, Decision& decision);
  void draw(const Mapping& mapping, const std::vector<std::size_t>& which, std::int64_t epoch,
            bool last);
  Mapping map_group(const std::vector<std::size_t>& group, Decision& decision) const;
  std::vector<std::vector<std::size_t>> measured_groups() const;

  ControllerSettings settings_;
  std::vector<Candidate> candidates_;
  std::uint64_t seed_;
  MaskFilter filter_;
  MomentAverage average_;
  std::vector<bool> measured_;  // in the last epoch
};

}  // namespace ablate::methods::ela
