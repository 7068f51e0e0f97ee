#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace ablate {

/// A curve as one line of block characters, at most `width` (> 0) of them, followed by its range:
/// "▁▂▃▅▇█  0.12 … 4.61". Longer curves are averaged in equal stretches; the range is that of all
/// points. A stretch that holds a value that is not finite shows "×". "" for no points.
std::string sparkline(std::span<const double> curve, std::size_t width);

}  // namespace ablate
