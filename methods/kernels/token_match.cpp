#include "methods/kernels/token_match.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace ablate::kernels {

std::int64_t most_merged(std::int64_t tokens, int protected_tokens) {
  return std::max<std::int64_t>(0, (tokens - protected_tokens) / 2);
}

namespace reference {
namespace {

/// Keys of one image averaged over the heads, of length one.
std::vector<double> unit_keys(const TokenMatch& a, std::int64_t image) {
  const std::int64_t width = a.heads * a.head_dim;
  std::vector<double> units(static_cast<std::size_t>(a.tokens * a.head_dim));
  for (std::int64_t n = 0; n < a.tokens; ++n) {
    const bfloat16* keys = a.qkv + ((image * a.tokens + n) * 3 + 1) * width;
    double* unit = units.data() + n * a.head_dim;
    double squares = 0.0;
    for (std::int64_t c = 0; c < a.head_dim; ++c) {
      for (std::int64_t h = 0; h < a.heads; ++h) unit[c] += to_float(keys[h * a.head_dim + c]);
      unit[c] /= static_cast<double>(a.heads);
      squares += unit[c] * unit[c];
    }
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (std::int64_t c = 0; c < a.head_dim; ++c) unit[c] /= norm;
  }
  return units;
}

struct Partners {
  std::vector<double> score;         // of each member of A
  std::vector<std::int64_t> member;  // of B
};

Partners best_partners(const TokenMatch& a, std::int64_t image) {
  const std::vector<double> units = unit_keys(a, image);
  Partners best;
  for (std::int64_t i = 0; i < (a.tokens + 1) / 2; ++i) {
    double top = std::numeric_limits<double>::lowest();
    std::int64_t partner = a.protected_tokens == 2 ? 1 : 0;
    for (std::int64_t j = partner; j < a.tokens / 2; ++j) {
      const double* x = units.data() + 2 * i * a.head_dim;
      const double* y = units.data() + (2 * j + 1) * a.head_dim;
      const double score = std::inner_product(x, x + a.head_dim, y, 0.0);
      if (score > top) {
        top = score;
        partner = j;
      }
    }
    const bool is_class = a.protected_tokens >= 1 && i == 0;
    best.score.push_back(is_class ? -std::numeric_limits<double>::infinity() : top);
    best.member.push_back(partner);
  }
  return best;
}

void match_image(const TokenMatch& a, std::int64_t image) {
  std::int32_t* positions = a.groups.positions + image * a.tokens;
  if (a.merged == 0) {
    std::iota(positions, positions + a.tokens, 0);
    return;
  }
  const Partners best = best_partners(a, image);
  std::vector<std::int64_t> order(best.score.size());
  std::iota(order.begin(), order.end(), 0);
  const auto score = [&](std::int64_t i) { return best.score[static_cast<std::size_t>(i)]; };
  std::ranges::stable_sort(order, [&](auto x, auto y) { return score(x) > score(y); });
  std::vector<std::int64_t> kept(order.begin() + a.merged, order.end());
  if (a.protected_tokens >= 1) std::ranges::sort(kept);
  const auto kept_count = static_cast<std::int64_t>(kept.size());
  const bool distilled = a.protected_tokens == 2;
  const auto place_of_b = [&](std::int64_t j) {
    return static_cast<std::int32_t>(distilled && j == 0 ? 1 : kept_count + j);
  };
  for (std::int64_t rank = 0; rank < kept_count; ++rank) {
    positions[2 * kept[static_cast<std::size_t>(rank)]] =
        static_cast<std::int32_t>(distilled && rank > 0 ? rank + 1 : rank);
  }
  for (std::int64_t j = 0; j < a.tokens / 2; ++j) positions[2 * j + 1] = place_of_b(j);
  for (std::int64_t rank = 0; rank < a.merged; ++rank) {
    const std::int64_t source = order[static_cast<std::size_t>(rank)];
    positions[2 * source] = place_of_b(best.member[static_cast<std::size_t>(source)]);
  }
}

}  // namespace

void match_tokens(const TokenMatch& arguments) {
  for (std::int64_t image = 0; image < arguments.batch; ++image) match_image(arguments, image);
  group_tokens({.batch = arguments.batch,
                .tokens = arguments.tokens,
                .new_tokens = arguments.tokens - arguments.merged,
                .groups = arguments.groups,
                .weights = arguments.weights});
}

}  // namespace reference
}  // namespace ablate::kernels
