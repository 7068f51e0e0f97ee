#include "methods/kernels/token_groups.h"

#include <cmath>

namespace ablate::kernels::reference {

void weigh_groups(const TokenGrouping& a) {
  const TokenWeights& weights = a.weights;
  for (std::int64_t image = 0; image < a.batch; ++image) {
    const auto size_of = [&](std::int64_t token) {
      return weights.sizes == nullptr ? 1.0 : double{weights.sizes[image * a.tokens + token]};
    };
    for (std::int64_t group = 0; group < a.new_tokens; ++group) {
      const std::int32_t* positions = a.groups.positions + image * a.tokens;
      double total = 0.0;
      for (std::int64_t n = 0; n < a.tokens; ++n) {
        if (positions[n] == group) total += size_of(n);
      }
      const std::int64_t row = image * a.new_tokens + group;
      if (weights.merged_sizes != nullptr) weights.merged_sizes[row] = static_cast<float>(total);
      if (weights.log_sizes != nullptr)
        weights.log_sizes[row] = static_cast<float>(std::log(total));
      for (std::int64_t n = 0; n < a.tokens && weights.shares != nullptr; ++n) {
        if (positions[n] != group) continue;
        weights.shares[image * a.tokens + n] = static_cast<float>(size_of(n) / total);
      }
    }
  }
}

void group_tokens(const TokenGrouping& arguments) {
  for (std::int64_t image = 0; image < arguments.batch; ++image) {
    const std::int32_t* positions = arguments.groups.positions + image * arguments.tokens;
    std::int32_t* offsets = arguments.groups.offsets + image * (arguments.new_tokens + 1);
    std::int32_t* members = arguments.groups.members + image * arguments.tokens;
    std::int32_t next = 0;
    for (std::int64_t group = 0; group < arguments.new_tokens; ++group) {
      offsets[group] = next;
      for (std::int64_t n = 0; n < arguments.tokens; ++n) {
        if (positions[n] == group) members[next++] = static_cast<std::int32_t>(n);
      }
    }
    offsets[arguments.new_tokens] = next;
  }
  weigh_groups(arguments);
}

void chain_positions(const PositionChain& arguments) {
  for (std::int64_t image = 0; image < arguments.batch; ++image) {
    for (std::int64_t n = 0; n < arguments.tokens; ++n) {
      const std::int64_t index = image * arguments.tokens + n;
      arguments.to[index] =
          arguments.second[image * arguments.middle_tokens + arguments.first[index]];
    }
  }
}

}  // namespace ablate::kernels::reference
