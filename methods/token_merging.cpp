#include "methods/token_merging.h"

#include <algorithm>
#include <limits>

#include "methods/models/fused/tokens.h"
#include "methods/models/uncounted.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

/// Without CUDA there is no fused form, and no FusedContext to ask for it.
constexpr bool kFusable = ABLATE_HAS_CUDA != 0;

using at::indexing::None;
using at::indexing::Slice;

/// Tokens that can be merged at a time: half of those without protection.
std::int64_t capped(std::int64_t r, std::int64_t tokens, std::int64_t protected_tokens) {
  return std::max<std::int64_t>(0, std::min(r, (tokens - protected_tokens) / 2));
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

/// The edges of a matching, by numbers within A and B.
struct Edges {
  at::Tensor kept;         // (B, |A| - r): members of A that stay, in output order
  at::Tensor source;       // (B, r): members of A that are merged away
  at::Tensor destination;  // (B, r): the member of B that each source joins
};

Edges best_edges(const at::Tensor& scores, std::int64_t r, std::int64_t protected_tokens) {
  const auto [best, partner] = scores.max(-1);
  const at::Tensor order = std::get<1>(best.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true));
  Edges edges{.kept = order.slice(1, r), .source = order.slice(1, 0, r), .destination = {}};
  edges.destination = partner.gather(1, edges.source);
  if (protected_tokens >= 1) edges.kept = std::get<0>(edges.kept.sort(1));
  return edges;
}

/// Where each of N tokens goes, (B, N).
at::Tensor positions_after(const Edges& edges, std::int64_t tokens, std::int64_t protected_tokens) {
  const std::int64_t batch = edges.kept.size(0), kept = edges.kept.size(1), b_count = tokens / 2;
  const auto options = edges.kept.options();
  const at::Tensor kept_ranks = at::arange(kept, options), b_ranks = at::arange(b_count, options);
  at::Tensor kept_positions = kept_ranks, b_positions = b_ranks + kept;
  if (protected_tokens >= 2) {
    kept_positions = at::where(kept_ranks == 0, kept_ranks, kept_ranks + 1);
    b_positions = at::where(b_ranks == 0, at::ones_like(b_ranks), b_positions);
  }
  b_positions = b_positions.expand({batch, b_count});
  at::Tensor positions = at::empty({batch, tokens}, options);
  at::Tensor of_a = positions.slice(1, 0, tokens, 2), of_b = positions.slice(1, 1, tokens, 2);
  of_a.scatter_(1, edges.kept, kept_positions.expand({batch, kept}));
  of_a.scatter_(1, edges.source, b_positions.gather(1, edges.destination));
  of_b.copy_(b_positions);
  return positions;
}

}  // namespace

MergePlan match_tokens(const at::Tensor& metric, std::int64_t r, std::int64_t protected_tokens) {
  const at::NoGradGuard no_grad;
  // The literature counts no operations for the matching.
  const UncountedScope uncounted;
  ABLATE_CHECK(protected_tokens >= 0 && protected_tokens <= 2, protected_tokens, " protected");
  const std::int64_t tokens = metric.size(1);
  r = capped(r, tokens, protected_tokens);
  MergePlan plan{.positions = {}, .tokens = tokens, .left = tokens - r};
  if (r == 0) return plan;
  const Edges edges =
      best_edges(similarity(metric.detach(), protected_tokens), r, protected_tokens);
  plan.positions = positions_after(edges, tokens, protected_tokens);
  return plan;
}

at::Tensor merge_sum(const MergePlan& plan, const at::Tensor& x) {
  if (plan.merged() == 0) return x;
  ABLATE_CHECK(x.size(1) == plan.tokens, "plan for ", plan.tokens, " tokens, got ", x.size(1));
  const std::int64_t batch = x.size(0), channels = x.size(2);
  const at::Tensor rows = flat_rows(plan.positions, plan.left), from = x.reshape({-1, channels});
  const at::Tensor zeros = at::zeros({batch * plan.left, channels}, x.options());
  // Whole rows at once: several times as fast on CPUs as gathering and scattering single elements.
  // On CUDA index_add_ adds atomically; index_put sorts and adds up in order.
  const at::Tensor sums = x.is_cuda() ? at::index_put(zeros, {rows}, from, /*accumulate=*/true)
                                      : zeros.index_add_(0, rows, from);
  return sums.view({batch, plan.left, channels});
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

at::Tensor unmerge(const at::Tensor& x, const at::Tensor& sources) {
  return take_tokens(x, sources);
}

at::Tensor representatives(const MergePlan& plan) {
  const at::NoGradGuard no_grad;
  const at::Tensor positions =
      plan.positions.defined() ? plan.positions : plan.groups.positions.to(at::kLong);
  const at::Tensor numbers = at::arange(plan.tokens, positions.options()).expand_as(positions);
  at::Tensor tokens = at::empty({positions.size(0), plan.left}, positions.options());
  // Who joins somebody comes from A; then the members of B, which stay, take their places.
  for (const std::int64_t first : {0, 1}) {
    tokens.scatter_(1, positions.slice(1, first, plan.tokens, 2),
                    numbers.slice(1, first, plan.tokens, 2));
  }
  return tokens;
}

namespace {

/// Leaves the tokens to the next join.
[[maybe_unused]] TokenStream merge_in_join(const TokenGroups& groups, TokenStream stream,
                                           ForwardState& state) {
  if constexpr (kFusable) {
    if (state.carried_keys.defined()) {
      state.carried_keys = fused::merge_means(groups, state.carried_keys, state.token_sizes);
    }
  }
  if (state.track_sources) move_sources(groups.positions.to(at::kLong), state);
  state.token_sizes = groups.sizes.unsqueeze(2);
  state.log_sizes = groups.log_sizes;
  stream.groups = groups;
  return stream;
}

}  // namespace

MergePlan match_keys(const at::Tensor& keys, std::int64_t r, const ForwardState& state) {
  const at::NoGradGuard no_grad;
  if constexpr (kFusable) {
    if (state.fused && fused::match_supported(keys)) {
      const std::int64_t tokens = keys.size(2), merged = capped(r, tokens, state.protected_tokens);
      MergePlan plan{.positions = {}, .tokens = tokens, .left = tokens - merged};
      if (merged == 0) return plan;
      plan.groups = fused::match_keys(keys, merged, state.protected_tokens, state.token_sizes);
      return plan;
    }
  }
  return match_metric(keys.mean(1), r, state);
}

MergePlan match_metric(const at::Tensor& metric, std::int64_t r, const ForwardState& state) {
  MergePlan plan = match_tokens(metric, r, state.protected_tokens);
  if constexpr (kFusable) {
    if (state.fused && plan.merged() > 0) {
      plan.groups = fused::group_tokens(plan.positions, plan.left, state.token_sizes);
    }
  }
  return plan;
}

TokenStream merge_stream(const MergePlan& plan, const TokenStream& stream, ForwardState& state) {
  if (plan.merged() == 0) return stream;
  if constexpr (kFusable) {
    if (plan.groups.defined()) return merge_in_join(plan.groups, stream, state);
  }
  const at::Tensor sizes = state.token_sizes;
  if (state.carried_keys.defined()) {
    state.carried_keys = merge_weighted(plan, state.carried_keys, sizes).first;
  }
  auto [merged, merged_sizes] = merge_weighted(plan, stream.value(), sizes);
  state.token_sizes = merged_sizes;
  state.log_sizes.reset();
  move_sources(plan.positions, state);
  return {merged};
}

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
