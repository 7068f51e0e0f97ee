#pragma once

#include <string_view>

namespace ablate {

/// What stands in for a retrieval that is skipped. With O the features that a block retrieves:
enum class SkipMode {
  None,      ///< it is not
  Drop,      ///< no branch at all, and nothing in the cache for later blocks
  KeepKeys,  ///< no branch, but later blocks find this one's key and value in the cache
  Reuse,     ///< O of the block before; norm and join are this block's own
  Recur,  ///< (1 - p) O of the block before + p v, p = sigmoid(own logit - log sum of the earlier)
};
std::string_view skip_mode_name(SkipMode mode);  ///< "drop"
/// Throws Error with the known names.
SkipMode skip_mode_named(std::string_view name);

}  // namespace ablate
