#include "methods/channel_similarity.h"

#include <algorithm>

#include "runner/core/params.h"

namespace ablate {
namespace {

// As wide as scores may start (0.8) without a channel falling under the threshold (0.5) at once.
constexpr double kLowestWeight = 2.0 / 3.0;
constexpr double kHighestWeight = 1.5;

template <typename Kind>
Kind read_similarity(Params& params, std::string_view key, const std::vector<std::string>& names,
                     std::string_view help) {
  const std::string name = params.choice(key, names.front(), names, help);
  return static_cast<Kind>(std::ranges::find(names, name) - names.begin());
}

}  // namespace

SimilarityForm SimilarityForm::read(Params& params) {
  SimilarityForm form;
  const std::string source = params.choice(
      "similarity", "weights", {"none", "weights", "activations"},
      "cosine similarity within a head that scores are weighted by: of the rows that write the "
      "channels, of their activations, or none (a control)");
  form.source = source == "none"      ? SimilaritySource::None
                : source == "weights" ? SimilaritySource::Weights
                                      : SimilaritySource::Activations;
  form.reduce =
      read_similarity<Reduce>(params, "similarity_of", {"mean", "absolute", "max"},
                              "over the other channels: mean, mean of magnitudes, largest");
  form.weight = read_similarity<Weight>(
      params, "similarity_weight", {"normalised", "plain", "exponential"},
      "factor of a score: (1 - s) over its mean in the head, within 2/3 and 3/2; 1 - s; exp(-s)");
  return form;
}

at::Tensor cosines_of_vectors(const at::Tensor& vectors) {
  const at::Tensor lengths = vectors.norm(2, {2}, /*keepdim=*/true);
  const at::Tensor units = at::where(lengths > 0, vectors / lengths, at::zeros_like(vectors));
  return at::bmm(units, units.transpose(1, 2));
}

at::Tensor cosines_of_gram(const at::Tensor& gram) {
  const at::Tensor lengths = gram.diagonal(0, 1, 2).clamp_min(0).sqrt();
  const at::Tensor products = lengths.unsqueeze(2) * lengths.unsqueeze(1);
  return at::where(products > 0, gram / products, at::zeros_like(gram));
}

at::Tensor likeness(const at::Tensor& cosines, SimilarityForm::Reduce reduce) {
  const std::int64_t width = cosines.size(2);
  if (width == 1) return at::zeros({cosines.size(0), 1}, cosines.options());
  const at::Tensor self = at::eye(width, cosines.options());
  if (reduce == SimilarityForm::Reduce::Largest) {
    return std::get<0>((cosines - 4.0 * self).max(2));
  }
  const at::Tensor values =
      reduce == SimilarityForm::Reduce::MeanAbsolute ? cosines.abs() : cosines;
  return (values * (1.0 - self)).sum(2) / static_cast<double>(width - 1);
}

at::Tensor similarity_weights(const at::Tensor& likeness, SimilarityForm::Weight weight) {
  if (weight == SimilarityForm::Weight::Plain) return 1.0 - likeness;
  if (weight == SimilarityForm::Weight::Exponential) return at::exp(-likeness);
  const at::Tensor rest = 1.0 - likeness;
  const at::Tensor mean = rest.mean(1, /*keepdim=*/true);
  // All alike: nobody is easier to replace than another.
  return at::where(mean > 0, rest / mean, at::ones_like(rest)).clamp(kLowestWeight, kHighestWeight);
}

}  // namespace ablate
