#pragma once

#include <string>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

class Params;

/// Where the cosine similarity of channels is taken from.
enum class SimilaritySource {
  None,
  Weights,      ///< rows of the layers that write them
  Activations,  ///< of images; of queries and keys the product, which is that of attention patterns
};

/// How it becomes a factor of a score (Lee and Hwang, arXiv 2405.20867, name cosine similarity
/// within a head; the forms are ours):
///
///   s_i = mean_{j != i} cos_ij   (or of |cos|, or the largest)
///   normalised:  r_i = 1 - s_i,  w_i = clip(r_i / mean_j r_j, 2/3, 3/2)
///   plain:       w_i = 1 - s_i
///   exponential: w_i = exp(-s_i)
struct SimilarityForm {
  enum class Reduce { Mean, MeanAbsolute, Largest };
  enum class Weight { Normalised, Plain, Exponential };

  SimilaritySource source = SimilaritySource::Weights;
  Reduce reduce = Reduce::Mean;
  Weight weight = Weight::Normalised;

  /// Reads similarity, similarity_of and similarity_weight.
  static SimilarityForm read(Params& params);
};

/// Cosines (rows, width, width) of vectors (rows, width, n), and from Gram matrices (rows, width,
/// width). A vector of length 0 is like no other.
at::Tensor cosines_of_vectors(const at::Tensor& vectors);
at::Tensor cosines_of_gram(const at::Tensor& gram);

/// s (rows, width), how much each channel is like the others of its row.
at::Tensor likeness(const at::Tensor& cosines, SimilarityForm::Reduce reduce);
/// The factors of scores.
at::Tensor similarity_weights(const at::Tensor& likeness, SimilarityForm::Weight weight);

}  // namespace ablate
