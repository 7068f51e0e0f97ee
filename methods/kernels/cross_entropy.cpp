#include "methods/kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace ablate::kernels::reference {
namespace {

/// Soft target of a row; NaN everywhere for a label out of range.
template <typename T>
std::vector<double> soft_target(const CrossEntropy<T>& arguments, std::int64_t row) {
  const auto classes = static_cast<double>(arguments.classes);
  const double smoothing = arguments.label_smoothing;
  std::vector<double> target(static_cast<std::size_t>(arguments.classes), smoothing / classes);
  const auto add = [&](std::int64_t label, double share) {
    if (label < 0 || label >= arguments.classes) {
      std::ranges::fill(target, std::numeric_limits<double>::quiet_NaN());
      return;
    }
    target[static_cast<std::size_t>(label)] += share * (1.0 - smoothing);
  };
  const double mix = arguments.other_labels == nullptr ? 1.0 : arguments.mix[row];
  add(arguments.labels[row], mix);
  if (arguments.other_labels != nullptr) add(arguments.other_labels[row], 1.0 - mix);
  return target;
}

}  // namespace

template <typename T>
void cross_entropy(const CrossEntropy<T>& arguments) {
  const std::int64_t classes = arguments.classes;
  const std::int64_t stride = arguments.logits_stride == 0 ? classes : arguments.logits_stride;
  const std::int64_t d_stride =
      arguments.d_logits_stride == 0 ? classes : arguments.d_logits_stride;
  double total = 0.0;
  for (std::int64_t row = 0; row < arguments.rows; ++row) {
    const std::vector<double> target = soft_target(arguments, row);
    std::vector<double> scores;
    for (std::int64_t k = 0; k < classes; ++k) {
      scores.push_back(to_float(arguments.logits[row * stride + k]));
    }
    const double largest = *std::ranges::max_element(scores);
    double sum = 0.0;
    for (const double score : scores) sum += std::exp(score - largest);
    const double log_sum = largest + std::log(sum);
    double loss = 0.0;
    for (std::size_t k = 0; k < scores.size(); ++k) loss -= target[k] * (scores[k] - log_sum);
    arguments.losses[row] = static_cast<float>(loss);
    total += loss;
    if (arguments.d_logits == nullptr) continue;
    for (std::size_t k = 0; k < scores.size(); ++k) {
      const double gradient = (std::exp(scores[k] - log_sum) - target[k]) * arguments.loss_scale /
                              static_cast<double>(arguments.rows);
      arguments.d_logits[row * d_stride + static_cast<std::int64_t>(k)] =
          from_float<T>(static_cast<float>(gradient));
    }
  }
  if (arguments.mean_loss != nullptr) {
    *arguments.mean_loss = static_cast<float>(total / static_cast<double>(arguments.rows));
  }
}

template void cross_entropy(const CrossEntropy<float>&);
template void cross_entropy(const CrossEntropy<bfloat16>&);

}  // namespace ablate::kernels::reference
