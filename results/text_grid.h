#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ablate {

/// Columns a UTF-8 text takes on a terminal (combining marks 0, East Asian wide and emoji 2).
std::size_t display_width(std::string_view text);

enum class Align : std::uint8_t { Left, Right };

/// Width of every column of the grid; rows may be ragged.
std::vector<std::size_t> column_widths(const std::vector<std::vector<std::string>>& rows);

/// One aligned line a row, columns two spaces apart, without trailing blanks. Columns beyond
/// `alignment` are left-aligned.
std::vector<std::string> grid_lines(const std::vector<std::vector<std::string>>& rows,
                                    const std::vector<Align>& alignment);

/// The first `width` columns of a text, whole characters only.
std::string clip_text(const std::string& text, std::size_t width);

/// Breaks a text at blanks so that lines are at most `width` wide (0: one line); later lines are
/// indented. A longer word stays whole.
std::vector<std::string> wrap_text(std::string_view text, std::size_t width,
                                   std::size_t indent = 0);

/// Replaces every `first` by its `second`.
std::string replace_all(
    std::string_view text,
    const std::vector<std::pair<std::string_view, std::string_view>>& replacements);

}  // namespace ablate
