#include "results/text_grid.h"

#include <algorithm>
#include <array>

namespace ablate {
namespace {

struct Range {
  char32_t first, last;
};
constexpr std::array kZeroWidth{Range{0x0300, 0x036F}, Range{0x200B, 0x200F},
                                Range{0xFE00, 0xFE0F}};
constexpr std::array kDoubleWidth{
    Range{0x1100, 0x115F}, Range{0x2E80, 0xA4CF}, Range{0xAC00, 0xD7A3},   Range{0xF900, 0xFAFF},
    Range{0xFE30, 0xFE6F}, Range{0xFF00, 0xFF60}, Range{0x1F300, 0x1FAFF}, Range{0x20000, 0x3FFFD}};

std::size_t character_width(char32_t c) {
  const auto holds = [c](const Range& range) { return c >= range.first && c <= range.last; };
  if (std::any_of(kZeroWidth.begin(), kZeroWidth.end(), holds)) return 0;
  return std::any_of(kDoubleWidth.begin(), kDoubleWidth.end(), holds) ? 2 : 1;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t c = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (std::size_t k = 1; k < length && i + k < text.size(); ++k) {
      c = (c << 6U) | (static_cast<unsigned char>(text[i + k]) & 0x3FU);
    }
    width += character_width(c);
    i += length;
  }
  return width;
}

std::vector<std::size_t> column_widths(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    if (row.size() > widths.size()) widths.resize(row.size(), 0);
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i]));
    }
  }
  return widths;
}

std::vector<std::string> grid_lines(const std::vector<std::vector<std::string>>& rows,
                                    const std::vector<Align>& alignment) {
  const std::vector<std::size_t> widths = column_widths(rows);
  std::vector<std::string> lines;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      const bool right = i < alignment.size() && alignment[i] == Align::Right;
      if (i > 0) line += "  ";
      line += right ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string clip_text(const std::string& text, std::size_t width) {
  std::size_t end = text.size();
  while (display_width(std::string_view(text).substr(0, end)) > width) {
    do --end;
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  }
  return text.substr(0, end);
}

std::vector<std::string> wrap_text(std::string_view text, std::size_t width, std::size_t indent) {
  std::vector<std::string> lines{""};
  std::size_t used = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find(' ', start), text.size());
    const std::string_view word = text.substr(start, end - start);
    start = end + 1;
    if (word.empty()) continue;
    const bool fresh = lines.back().find_first_not_of(' ') == std::string::npos;
    const std::size_t needed = display_width(word) + (fresh ? 0 : 1);
    if (!fresh && width > 0 && used + needed > width) {
      lines.push_back(std::string(indent, ' ').append(word));
      used = indent + display_width(word);
      continue;
    }
    if (!fresh) lines.back() += ' ';
    lines.back() += word;
    used += needed;
  }
  return lines;
}

std::string replace_all(
    std::string_view text,
    const std::vector<std::pair<std::string_view, std::string_view>>& replacements) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto found = std::find_if(replacements.begin(), replacements.end(), [&](const auto& r) {
      return text.substr(i).starts_with(r.first);
    });
    if (found == replacements.end()) {
      result += text[i++];
    } else {
      result += found->second;
      i += found->first.size();
    }
  }
  return result;
}

}  // namespace ablate
