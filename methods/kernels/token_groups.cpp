#include "methods/kernels/token_groups.h"

namespace ablate::kernels::reference {

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
