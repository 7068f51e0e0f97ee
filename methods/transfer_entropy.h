#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

class Communicator;

/// Entropy of a feature set under the per-channel Gaussian surrogate of NOSE (Lin et al., "MLP Can
/// Be a Good Transformer Learner", CVPR 2024, eq. 5), constants dropped:  H(F) = sum_j log sigma_j.
/// All samples are pooled (never an average over batches), in float64, and merged over ranks as
/// (n, mean, sum of squared deviations) by the pairwise update of Chan, Golub and LeVeque (1979).
class GaussianEntropy {
 public:
  /// Adds the rows of features (B, D) whose weight (B) is not 0.
  void add(const at::Tensor& features, const at::Tensor& weights);
  /// Merges the statistics of all ranks, in rank order, so that every rank holds the same bits.
  /// `device` is where the communicator works (and the features were).
  void reduce(Communicator& communicator, at::Device device);

  std::int64_t samples() const { return samples_; }
  /// Standard deviations, (D) float64; `unbiased` divides by n - 1.
  at::Tensor deviations(bool unbiased) const;
  /// sum_j log_base sigma_j. Throws Error naming the channel when one is constant but for rounding
  /// (its entropy is minus infinity, which no comparison survives) or not finite.
  double entropy(bool unbiased, double log_base) const;

 private:
  /// Throws when one of the marked `channels` (D) is there.
  void refuse(const at::Tensor& channels, std::string_view what, std::string_view advice) const;
  void merge(std::int64_t samples, const at::Tensor& mean, const at::Tensor& squares);

  std::int64_t samples_ = 0;
  at::Tensor mean_, squares_;  // (D) float64
};

/// One step of a greedy selection.
struct SelectionStep {
  int chosen = -1;
  double transfer_entropy = 0;
  std::vector<std::pair<int, double>> tried;  ///< candidate, TE with it added
};

/// Greedy forward selection of `count` layers: each step adds the candidate whose set S has the
/// least transfer entropy TE(S) = H(nothing skipped) - H(S skipped), by its signed value or its
/// magnitude; ties go to the lowest layer. `entropy_of` measures H with a sorted set skipped and is
/// called sum_{k < count} (candidates - k) + 1 times.
std::vector<SelectionStep> select_layers(
    const std::vector<int>& candidates, int count, bool absolute,
    const std::function<double(const std::vector<int>& skipped)>& entropy_of);

/// Calls back with every sorted set of `count` of the sorted candidates, in lexical order.
void for_each_subset(const std::vector<int>& candidates, int count,
                     const std::function<void(const std::vector<int>& subset)>& visit);

}  // namespace ablate
