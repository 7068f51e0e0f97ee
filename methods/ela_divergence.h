#pragma once

#include <cstdint>
#include <string_view>

#include "runner/torch/torch.h"

namespace ablate::methods::ela {

/// How far the weights with which a block retrieves from earlier ones are from those of its
/// neighbour before it. That it is a Kullback-Leibler divergence of neighbours is the paper's word;
/// how rows of different length are compared is not, so all of these are ours.
///
/// With a' the row of the neighbour, a the block's own, and b the entries of a that a' has, too,
/// normalised again:
enum class Divergence {
  Padded,         ///< KL((a', 0) || a) = KL(a' || b) - log(share of a on the entries of a')
  Shared,         ///< KL(a' || b); 0 for the second block of a stage
  SharedReverse,  ///< KL(b || a')
  JensenShannon,  ///< of (a', 0) and a, over log 2: in [0, 1]
  MeanRows,       ///< Padded, of rows averaged over the samples and heads of an epoch
  Cosine,         ///< 1 - cosine of (a', 0) and a, or of gates
  // Of gates s in (0, 1), one a head:
  Bernoulli,    ///< KL of (s', 1 - s') and (s, 1 - s), for each head
  Categorical,  ///< KL of s' / sum s' and s / sum s
};
Divergence divergence_named(std::string_view name);
std::string_view divergence_name(Divergence kind);
/// Whether it compares rows over blocks, and whether gates.
bool compares_rows(Divergence kind);
bool compares_gates(Divergence kind);

/// Logarithms of the rows of all blocks of a stage, (n, B, g, n): softmax of query times key over
/// sqrt(d), each block against itself and those before it; minus infinity for later ones. Queries
/// and keys (n, B, g, d).
at::Tensor log_rows(const at::Tensor& queries, const at::Tensor& keys);

/// Of logarithms of rows (.., n); entries that a row lacks are minus infinity, and `current` has
/// all of `previous`. Returns (..). Finite for finite entries; no logarithm of a small sum is
/// taken.
at::Tensor row_divergence(Divergence kind, const at::Tensor& previous, const at::Tensor& current);

/// Of gates given by their logits (.., g): (.., g) for Bernoulli, else (..).
at::Tensor gate_divergence(Divergence kind, const at::Tensor& previous, const at::Tensor& current);

}  // namespace ablate::methods::ela
