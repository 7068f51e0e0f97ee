#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runner/core/value.h"
#include "sweeps/sweep_spec.h"

namespace ablate {

/// An edge to an earlier draft. Roles: "init" (start weights and structure), "teacher".
struct DraftParent {
  std::string role;
  std::size_t draft = 0;
};

/// One run as the sweep file asks for it, before the registries have resolved it.
struct Draft {
  std::string label;    ///< row label, coordinates included: "NOSE + ToMe [tome.r=4]"
  std::string variant;  ///< label in the file
  std::string dataset;  ///< its name
  std::uint64_t seed = 0;
  int row = 0;  ///< position of the label in the table
  Value spec;   ///< run table; own methods only: the parent's come with its edits
  std::vector<DraftParent> parents;
  Origin origin;  ///< of the variant, for messages
};

/// Multiplies variants, axes, data sets and seeds. Pure: no file, clock or database is read.
///
/// - An axis over a method's setting ("tome.r") applies to the variants that have the method among
///   their own; one over another setting ("optimizer.lr") to all variants but those that write that
///   setting themselves. Where an axis applies it multiplies the variant and, through them, its
///   descendants, which inherit the coordinate.
/// - Drafts are in topological order, seed by seed, so that a sweep that is cut short has whole
///   blocks of rows: blocks are what the statistics need.
///
/// Throws SpecError when an axis applies nowhere.
std::vector<Draft> expand(const SweepSpec& sweep);

/// `[run]` under the variant's own keys: tables merge key by key, unless the upper one chooses
/// another `name` than the lower, whose settings then mean nothing.
Value overlay(const Value& lower, const Value& upper);

/// The row labels of the drafts in table order.
std::vector<std::string> row_labels(const std::vector<Draft>& drafts);

}  // namespace ablate
