#include "methods/token_merging.h"

#include <algorithm>
#include <limits>

#include "methods/models/uncounted.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

using at::indexing::None;
using at::indexing::Slice;

/// Rows of x (B, N, C) at `index` (B, M).
at::Tensor take_rows(const at::Tensor& x, const at::Tensor& index) {
  return x.gather(1, index.unsqueeze(-1).expand({-1, -1, x.size(2)}));
}

/// Cosine similarities of A against B, (B, |A|, |B|), with forbidden pairs at -infinity.
at::Tensor similarity(const at::Tensor& metric, std::int64_t protected_tokens) {
  // In half precision many scores would tie. The bound only keeps a zero key from becoming NaN; any
  // other vector is divided by its norm.
  const at::Tensor precise = metric.to(at::promote_types(metric.scalar_type(), at::kFloat));
  const at::Tensor unit = precise / precise.norm(2, -1, true).clamp_min(1e-12);
  const at::Tensor a = unit.index({Slice(), Slice(0, None, 2)});
  const at::Tensor b = unit.index({Slice(), Slice(1, None, 2)});
  at::Tensor scores = at::matmul(a, b.transpose(1, 2));
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  if (protected_tokens >= 1) scores.select(1, 0).fill_(kNever);
  if (protected_tokens >= 2) scores.select(2, 0).fill_(kNever);
  return scores;
}

}  // namespace

MergePlan match_tokens(const at::Tensor& metric, std::int64_t r, std::int64_t protected_tokens) {
  const at::NoGradGuard no_grad;
  // The literature counts no operations for the matching.
  const UncountedScope uncounted;
  ABLATE_CHECK(protected_tokens >= 0 && protected_tokens <= 2, protected_tokens, " protected");
  MergePlan plan;
  plan.tokens = metric.size(1);
  plan.protected_tokens = protected_tokens;
  r = std::min(r, (plan.tokens - protected_tokens) / 2);
  if (r <= 0) return plan;
  const auto [best, partner] = similarity(metric.detach(), protected_tokens).max(-1);
  const at::Tensor order = std::get<1>(best.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true));
  plan.source = order.slice(1, 0, r).contiguous();
  plan.kept = order.slice(1, r).contiguous();
  plan.destination = partner.gather(1, plan.source);
  if (protected_tokens >= 1) plan.kept = std::get<0>(plan.kept.sort(1));
  return plan;
}

at::Tensor merge_sum(const MergePlan& plan, const at::Tensor& x) {
  if (plan.merged() == 0) return x;
  ABLATE_CHECK(x.size(1) == plan.tokens, "plan for ", plan.tokens, " tokens, got ", x.size(1));
  const at::Tensor a = x.index({Slice(), Slice(0, None, 2)});
  const at::Tensor b = x.index({Slice(), Slice(1, None, 2)});
  const at::Tensor kept = take_rows(a, plan.kept);
  const at::Tensor joined = b.scatter_add(
      1, plan.destination.unsqueeze(-1).expand({-1, -1, x.size(2)}), take_rows(a, plan.source));
  if (plan.protected_tokens < 2) return at::cat({kept, joined}, 1);
  return at::cat({kept.slice(1, 0, 1), joined.slice(1, 0, 1), kept.slice(1, 1), joined.slice(1, 1)},
                 1);
}

std::pair<at::Tensor, at::Tensor> merge_weighted(const MergePlan& plan, const at::Tensor& x,
                                                 const at::Tensor& sizes) {
  if (plan.merged() == 0) return {x, sizes};
  // Sizes stay exact, and sums of tokens precise, when x is in half precision.
  const auto precise = at::promote_types(x.scalar_type(), at::kFloat);
  const at::Tensor new_sizes = merge_sum(
      plan,
      sizes.defined() ? sizes : at::ones({x.size(0), x.size(1), 1}, x.options().dtype(precise)));
  const at::Tensor weighted = sizes.defined() ? x * sizes : x.to(precise);
  return {(merge_sum(plan, weighted) / new_sizes).to(x.scalar_type()), new_sizes};
}

at::Tensor merge_positions(const MergePlan& plan) {
  ABLATE_CHECK(plan.merged() > 0, "a plan that merges nothing moves no token");
  const at::NoGradGuard no_grad;
  const std::int64_t batch = plan.source.size(0), kept = plan.kept.size(1);
  const auto options = plan.source.options();
  const std::int64_t b_count = plan.tokens / 2;
  const at::Tensor kept_ranks = at::arange(kept, options).expand({batch, kept});
  const at::Tensor b_ranks = at::arange(b_count, options).expand({batch, b_count});
  // Where the n-th kept token of A and the j-th token of B stand in the output.
  at::Tensor kept_positions = kept_ranks, b_positions = b_ranks + kept;
  if (plan.protected_tokens >= 2) {
    kept_positions = at::where(kept_ranks == 0, kept_ranks, kept_ranks + 1);
    b_positions = at::where(b_ranks == 0, at::ones_like(b_ranks), b_positions);
  }
  at::Tensor a_positions = at::empty({batch, plan.tokens - b_count}, options);
  a_positions.scatter_(1, plan.kept, kept_positions);
  a_positions.scatter_(1, plan.source, b_positions.gather(1, plan.destination));
  at::Tensor positions = at::empty({batch, plan.tokens}, options);
  positions.index_put_({Slice(), Slice(0, None, 2)}, a_positions);
  positions.index_put_({Slice(), Slice(1, None, 2)}, b_positions);
  return positions;
}

at::Tensor unmerge(const at::Tensor& x, const at::Tensor& sources) { return take_rows(x, sources); }

std::vector<std::int64_t> merge_schedule(std::int64_t r, double inflect, std::int64_t depth) {
  const auto first = static_cast<std::int64_t>(static_cast<double>(r) * (1.0 - inflect));
  const std::int64_t last = 2 * r - first;
  const double step =
      depth > 1 ? static_cast<double>(last - first) / static_cast<double>(depth - 1) : 0.0;
  std::vector<std::int64_t> schedule;
  for (std::int64_t block = 0; block < depth; ++block) {
    // A fused multiply-add would move the last entries of published schedules by one.
    const volatile double climbed = step * static_cast<double>(block);
    schedule.push_back(static_cast<std::int64_t>(static_cast<double>(first) + climbed));
  }
  return schedule;
}

}  // namespace ablate
