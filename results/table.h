#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "results/table_data.h"
#include "results/table_spec.h"

namespace ablate {

/// One number (or word) behind a cell, in full precision, for machine-readable output.
struct Statistic {
  std::string name;
  std::string value;
};

/// Numbers of footnotes as renderers print them, from 1: "1,2".
std::string note_numbers(const std::vector<std::size_t>& notes);

struct Cell {
  std::string text;
  std::vector<std::size_t> notes;  ///< indices into RenderedTable::notes
  std::vector<Statistic> statistics;
};

enum class RowKind : std::uint8_t { Ours, Baseline, Paper };

enum class ColumnRole : std::uint8_t {
  Number,  ///< running number of our rows
  Label,
  Value,  ///< mean ± sd (n)
  Delta,  ///< difference and interval, or relative change
  Pairs,  ///< seeds behind the difference
  P,      ///< adjusted p or the reason why there is none
  OwnP,   ///< p of the row's own paired t
  Claim,  ///< "no worse", "equal"
};

/// Whether a column holds words (aligned left) rather than numbers (aligned right).
constexpr bool holds_words(ColumnRole role) {
  return role == ColumnRole::Label || role == ColumnRole::P || role == ColumnRole::Claim;
}

struct RenderedColumn {
  std::string group;  ///< name of the column of the spec it belongs to; empty for labels
  std::string header;
  std::string unit;
  ColumnRole role = ColumnRole::Value;
  std::vector<Statistic> statistics;  ///< of the whole column, beside its Value
};

struct RenderedRow {
  RowKind kind = RowKind::Ours;
  std::string label;
  std::vector<Cell> cells;  ///< by rendered column
};

/// A table with every text made and every number decided: what all renderers share. Texts are
/// UTF-8 with "±", "−", "≥", "Δ" and "×"; nothing is escaped.
struct RenderedTable {
  std::string title;
  std::vector<RenderedColumn> columns;
  std::vector<RenderedRow> rows;      ///< ours in order, then those of papers
  std::vector<std::string> notes;     ///< footnotes
  std::vector<std::string> findings;  ///< detectable differences and what more seeds would decide
  std::vector<std::string> caption;   ///< sentences
  std::string comment;                ///< database hash and SQL, one line
};

/// Compares, decides and words a table: every row against the baseline, with spread, seeds,
/// interval and adjusted p or the reason why nothing can be said. Throws SpecError when the
/// baseline is unknown or a column mixes protocols.
RenderedTable build_table(const TableSpec& spec, const TableData& data);

}  // namespace ablate
