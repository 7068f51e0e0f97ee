#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace ablate {

/// Columns a text takes on a terminal, one a character: enough for our labels.
int text_columns(std::string_view text);
/// The first `width` columns.
std::string clip_text(const std::string& text, int width);
/// Clipped or padded to exactly `width` columns.
std::string fit_text(const std::string& text, int width);

/// A plain aligned table for lists and queries. (Ablation tables are results/table.h.)
class TextTable {
 public:
  /// `alignment` has one letter a column, 'l' or 'r'; missing ones mean 'l'.
  explicit TextTable(std::vector<std::string> header, std::string alignment = {});

  /// A row; missing cells are empty.
  void add(std::vector<std::string> cells);
  std::size_t size() const { return rows_.size(); }

  void print(std::ostream& out, std::string_view indent = "") const;

 private:
  std::vector<std::string> header_;
  std::string alignment_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace ablate
