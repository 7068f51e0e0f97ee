#include "results/sparkline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <sstream>
#include <string_view>
#include <vector>

#include "results/number_format.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

std::string_view block(double value, double low, double high) {
  if (!std::isfinite(value)) return "×";
  if (high <= low) return kBlocks[3];
  const double level = (value - low) / (high - low) * (kBlocks.size() - 1);
  return kBlocks[static_cast<std::size_t>(std::lround(level))];
}

/// Three significant digits, in powers of ten where the fixed form would be all zeros.
std::string range_text(double value) {
  if (value == 0 || std::abs(value) >= 1e-3) {
    return format_fixed(value, decimals_for_value(value, 3));
  }
  std::ostringstream out;
  out << std::setprecision(3) << value;
  return out.str();
}

}  // namespace

std::string sparkline(std::span<const double> curve, std::size_t width) {
  ABLATE_CHECK(width > 0);
  std::vector<double> finite;
  std::copy_if(curve.begin(), curve.end(), std::back_inserter(finite),
               [](double value) { return std::isfinite(value); });
  const std::size_t blocks = std::min(width, curve.size());
  std::vector<double> means;
  for (std::size_t i = 0; i < blocks; ++i) {
    const auto first = curve.begin() + static_cast<std::ptrdiff_t>(i * curve.size() / blocks);
    const auto last = curve.begin() + static_cast<std::ptrdiff_t>((i + 1) * curve.size() / blocks);
    means.push_back(std::accumulate(first, last, 0.0) / static_cast<double>(last - first));
  }
  double low = 0, high = 0;
  bool any = false;
  for (const double mean : means) {
    if (!std::isfinite(mean)) continue;
    low = any ? std::min(low, mean) : mean;
    high = any ? std::max(high, mean) : mean;
    any = true;
  }
  std::string line;
  for (const double mean : means) line += block(mean, low, high);
  if (finite.empty()) return line;
  const auto [smallest, largest] = std::minmax_element(finite.begin(), finite.end());
  line += "  " + range_text(*smallest);
  if (*largest > *smallest) line += " … " + range_text(*largest);
  return line;
}

}  // namespace ablate
