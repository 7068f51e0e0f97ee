#pragma once

#include <string_view>

namespace ablate {

/// Which numbers of a residual join (B, N, C) are drawn together when its gains are random
/// (ResidualGains). The values are stored by name.
enum class GainMask {
  None,     ///< none: the gains hold for all
  Element,  ///< each for itself
  Token,    ///< the channels of a token of a sample
  Channel,  ///< a channel of all tokens of a sample
  Sample,   ///< all of a sample
};

/// "none", "element", "token", "channel", "sample".
std::string_view mask_name(GainMask mask);
/// Throws Error for another name, with the known ones.
GainMask mask_named(std::string_view name);

}  // namespace ablate
