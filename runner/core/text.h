#pragma once

#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace ablate {

/// Concatenates anything that can be streamed. (No fmt: LibTorch ships its own, which clashes with
/// the distribution's in any file that sees both.)
template <typename... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

/// "a, b, c" for any range whose elements can be streamed.
template <typename Range>
std::string join(const Range& range, std::string_view separator = ", ") {
  std::ostringstream out;
  bool first = true;
  for (const auto& element : range) {
    if (!first) out << separator;
    out << element;
    first = false;
  }
  return std::move(out).str();
}

/// Parts of `text` between separators; empty parts are kept.
std::vector<std::string> split(std::string_view text, char separator);

/// The candidate with the smallest edit distance to `name`, or "" when none is near enough (more
/// than a third of its letters differ) to be what the user meant.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

/// " (did you mean \"x\"?)" when a candidate is near, else "; known: a, b, c".
std::string suggestion(std::string_view name, std::span<const std::string> candidates);

/// 1536 -> "1.5 KiB", with the unit chosen so that the number is below 1024.
std::string human_bytes(double bytes);

/// Seconds as "850 ms", "12.3 s", "4 min 05 s", "3 h 12 min" or "2 d 04 h".
std::string human_duration(double seconds);

}  // namespace ablate
