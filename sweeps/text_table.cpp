#include "sweeps/text_table.h"

#include <algorithm>
#include <ostream>

namespace ablate {
namespace {

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

int text_columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string clip_text(const std::string& text, int width) {
  int columns = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (starts_character(text[i]) && ++columns > width) return text.substr(0, i);
  }
  return text;
}

std::string fit_text(const std::string& text, int width) {
  const std::string cut = clip_text(text, width);
  return cut + std::string(static_cast<std::size_t>(width - text_columns(cut)), ' ');
}

TextTable::TextTable(std::vector<std::string> header, std::string alignment)
    : header_(std::move(header)), alignment_(std::move(alignment)) {
  alignment_.resize(header_.size(), 'l');
}

void TextTable::add(std::vector<std::string> cells) {
  cells.resize(header_.size());
  rows_.push_back(std::move(cells));
}

void TextTable::print(std::ostream& out, std::string_view indent) const {
  std::vector<int> widths;
  for (std::size_t c = 0; c < header_.size(); ++c) {
    int width = text_columns(header_[c]);
    for (const auto& row : rows_) width = std::max(width, text_columns(row[c]));
    widths.push_back(width);
  }
  const auto print_row = [&](const std::vector<std::string>& cells) {
    std::string line(indent);
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const auto gap = static_cast<std::size_t>(widths[c] - text_columns(cells[c]));
      if (c > 0) line += "  ";
      line += alignment_[c] == 'r' ? std::string(gap, ' ') + cells[c]
                                   : cells[c] + std::string(gap, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  };
  print_row(header_);
  for (const auto& row : rows_) print_row(row);
}

}  // namespace ablate
