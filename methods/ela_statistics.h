#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "methods/ela_divergence.h"
#include "methods/ela_filter.h"
#include "methods/models/layer_attention.h"

namespace ablate {
class Communicator;
}

namespace ablate::methods::ela {

/// What one epoch told.
struct EpochStatistics {
  /// An entry for each candidate; nothing where no pass said anything (skipped, without shadow).
  std::vector<std::optional<LayerMoments>> layers;
  /// For each stage the mean row of each block (n, n), or its mean gate (n, 1); float64.
  std::vector<at::Tensor> profiles;
};

/// Sums over samples and heads of what the passes of an epoch say about neighbouring blocks, kept
/// on the device of the model, where they grow inside captured steps, and in float64.
class DivergenceSums {
 public:
  /// `stages`: numbers of the blocks of each, in order. Divergences are cut off at `clip`.
  DivergenceSums(Divergence kind, bool gates, double clip, std::vector<std::vector<int>> stages,
                 std::vector<Candidate> candidates, at::Device device);

  /// Adds one pass; no synchronisation with the host.
  void add(const RetrievalRecord& record);

  /// The sums of all ranks, one below the other, on the host: (ranks, K).
  at::Tensor gather(Communicator& communicator) const;
  /// Begins again from these (K), zeros when undefined. Waits for the device.
  void reset(const at::Tensor& sums = {});
  std::int64_t size() const { return sums_.numel(); }

  /// Reads sums over all ranks, (K) on the host.
  EpochStatistics read(const at::Tensor& sums) const;

 private:
  struct Stage {
    std::vector<int> blocks;
    std::int64_t profile = 0;  ///< where its profile begins among the sums
  };
  /// What entered the record of one stage, as (blocks, B, g, n) log rows or (blocks, B, g) logits.
  struct Taken {
    std::vector<int> blocks;
    at::Tensor values;
  };

  Taken take(const Stage& stage, const RetrievalRecord& record) const;
  void add_moments(const Taken& taken);
  void add_profile(const Stage& stage, const Taken& taken);
  LayerMoments mean_row_moments(const Candidate& candidate, const at::Tensor& profile) const;
  std::int64_t profile_width(const Stage& stage) const {
    return gates_ ? 1 : std::ssize(stage.blocks);
  }
  std::int64_t index_of(int block) const;  ///< among the candidates; -1: not one

  Divergence kind_;
  bool gates_;
  double clip_;
  std::vector<Stage> stages_;
  std::vector<Candidate> candidates_;
  at::Tensor sums_;
};

}  // namespace ablate::methods::ela
