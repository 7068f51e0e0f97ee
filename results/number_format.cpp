#include "results/number_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace ablate {
namespace {

constexpr int kMostDecimals = 9;

std::string print(const char* format, int decimals, double value) {
  std::array<char, 64> buffer{};
  const int length = std::snprintf(buffer.data(), buffer.size(), format, decimals, value);
  return {buffer.data(), static_cast<std::size_t>(length)};
}

}  // namespace

int decimals_for_value(double value, int digits) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(value))));
  int decimals = std::clamp(digits - 1 - exponent, 0, kMostDecimals);
  // 0.0996 rounds up to 0.10: one digit more than asked for.
  if (decimals > 0 && std::strtod(print("%.*f", decimals, std::abs(value)).c_str(), nullptr) >=
                          std::pow(10.0, exponent + 1) * (1 - 1e-12)) {
    --decimals;
  }
  return decimals;
}

int decimals_for_spread(double spread) { return decimals_for_value(spread, 2); }

std::string format_fixed(double value, int decimals) {
  const double size = std::abs(value);
  std::string text = size >= 1e15 ? print("%.*e", 4, size) : print("%.*f", decimals, size);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return value < 0 && !zero ? "−" + text : text;
}

std::string format_signed(double value, int decimals) {
  std::string text = format_fixed(value, decimals);
  return value >= 0 || text.front() == '0' ? "+" + text : text;
}

std::string format_mean_sd(double mean, double sd) {
  const int decimals = decimals_for_spread(sd);
  return format_fixed(mean, decimals) + " ± " + format_fixed(sd, decimals);
}

std::string format_p(double p) {
  if (p < 0.001) return "<0.001";
  if (p < 0.00995) return print("%.*f", 4, p);
  return print("%.*f", p < 0.0995 ? 3 : 2, p);
}

std::string format_change(double value, double reference) {
  if (reference == 0) return "";
  if (value == reference) return "=";
  const double percent = (value / reference - 1) * 100;
  if (std::abs(percent) >= 99.5) return format_signed(percent, 0) + " %";
  return format_signed(percent, std::clamp(decimals_for_value(percent, 1), 1, 4)) + " %";
}

std::string full_precision(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return {buffer.data(), end};
}

}  // namespace ablate
