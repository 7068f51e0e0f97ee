#include "methods/ela_divergence.h"

#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "runner/core/error.h"

namespace ablate::methods::ela {
namespace {

constexpr double kAbsent = -std::numeric_limits<double>::infinity();

constexpr std::array<std::pair<Divergence, std::string_view>, 8> kDivergences{{
    {Divergence::Padded, "padded"},
    {Divergence::Shared, "shared"},
    {Divergence::SharedReverse, "shared_reverse"},
    {Divergence::JensenShannon, "jensen_shannon"},
    {Divergence::MeanRows, "mean_rows"},
    {Divergence::Cosine, "cosine"},
    {Divergence::Bernoulli, "bernoulli"},
    {Divergence::Categorical, "categorical"},
}};

/// sum p (log p - log q) over the entries in `support`.
at::Tensor divergence_on(const at::Tensor& support, const at::Tensor& log_p,
                         const at::Tensor& log_q) {
  const at::Tensor terms = log_p.exp() * (log_p - log_q);
  return at::where(support, terms, at::zeros_like(terms)).sum(-1);
}

/// What is no number is there, or it would pass for nothing.
at::Tensor present(const at::Tensor& log_row) { return log_row != kAbsent; }

/// Normalised again over `support`.
at::Tensor log_share(const at::Tensor& log_row, const at::Tensor& support) {
  const at::Tensor kept = log_row.masked_fill(support.logical_not(), kAbsent);
  return kept - kept.logsumexp(-1, true);
}

at::Tensor jensen_shannon(const at::Tensor& previous, const at::Tensor& current) {
  const at::Tensor middle = at::logaddexp(previous, current) - std::numbers::ln2;
  const at::Tensor sum = divergence_on(present(previous), previous, middle) +
                         divergence_on(present(current), current, middle);
  return sum / (2.0 * std::numbers::ln2);
}

at::Tensor cosine_distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor norms = a.square().sum(-1) * b.square().sum(-1);
  return (1.0 - (a * b).sum(-1) / norms.sqrt()).clamp_min(0.0);
}

}  // namespace

std::string_view divergence_name(Divergence kind) {
  return kDivergences[static_cast<std::size_t>(kind)].second;
}

Divergence divergence_named(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& [kind, its_name] : kDivergences) {
    if (its_name == name) return kind;
    known.push_back(its_name);
  }
  throw Error(cat("unknown divergence \"", name, "\"; known: ", join(known)));
}

bool compares_gates(Divergence kind) {
  return kind == Divergence::Bernoulli || kind == Divergence::Categorical ||
         kind == Divergence::Cosine;
}

bool compares_rows(Divergence kind) {
  return kind != Divergence::Bernoulli && kind != Divergence::Categorical;
}

// By a sum of products, which has float's precision on every device, other than a matrix product.
at::Tensor log_rows(const at::Tensor& queries, const at::Tensor& keys) {
  const std::int64_t blocks = queries.size(0);
  const double scale = std::sqrt(static_cast<double>(queries.size(3)));
  const at::Tensor products = queries.unsqueeze(3) * keys.permute({1, 2, 0, 3});
  const at::Tensor later = at::ones({blocks, blocks}, queries.options().dtype(at::kBool))
                               .triu(1)
                               .view({blocks, 1, 1, blocks});
  return (products.sum(4) / scale).masked_fill(later, kAbsent).log_softmax(-1);
}

at::Tensor row_divergence(Divergence kind, const at::Tensor& previous, const at::Tensor& current) {
  const at::Tensor support = present(previous);
  switch (kind) {
    case Divergence::Padded:
    case Divergence::MeanRows:
      return divergence_on(support, previous, current);
    case Divergence::Shared:
      return divergence_on(support, previous, log_share(current, support));
    case Divergence::SharedReverse:
      return divergence_on(support, log_share(current, support), previous);
    case Divergence::JensenShannon:
      return jensen_shannon(previous, current);
    case Divergence::Cosine:
      return cosine_distance(previous.exp(), current.exp());
    default:
      throw BugError(cat(divergence_name(kind), " compares gates"));
  }
}

at::Tensor gate_divergence(Divergence kind, const at::Tensor& previous, const at::Tensor& current) {
  const at::Tensor log_p = at::log_sigmoid(previous), log_q = at::log_sigmoid(current);
  switch (kind) {
    case Divergence::Bernoulli: {
      const at::Tensor log_not_p = at::log_sigmoid(-previous),
                       log_not_q = at::log_sigmoid(-current);
      return log_p.exp() * (log_p - log_q) + log_not_p.exp() * (log_not_p - log_not_q);
    }
    case Divergence::Categorical: {
      const at::Tensor p = log_p - log_p.logsumexp(-1, true);
      const at::Tensor q = log_q - log_q.logsumexp(-1, true);
      return (p.exp() * (p - q)).sum(-1);
    }
    case Divergence::Cosine:
      return cosine_distance(log_p.exp(), log_q.exp());
    default:
      throw BugError(cat(divergence_name(kind), " compares rows"));
  }
}

}  // namespace ablate::methods::ela
