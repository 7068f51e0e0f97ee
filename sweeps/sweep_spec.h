#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runner/core/value.h"
#include "sweeps/launch.h"

namespace ablate {

/// One `[[variant]]`: a row of the table before axes multiply it.
struct Variant {
  std::string label;
  std::string from;     ///< label of the variant whose final weights it starts from; or empty
  std::string teacher;  ///< label of the variant it is distilled from; or empty
  Value run;            ///< keys of a run table that differ from `[run]`, own methods included
  Origin origin;
};

/// One line of `[axes]`: a path into the run table ("tome.r", "optimizer.lr") and its values.
struct Axis {
  std::string path;
  Value::Array values;
  Origin origin;
};

/// A sweep file as written: parsed and checked in itself, but not yet against the registries.
struct SweepSpec {
  std::string name, title;
  std::string file;             ///< for messages
  std::string text;             ///< the file's content, kept in the database
  Value run;                    ///< what all runs share
  std::vector<Value> datasets;  ///< empty: the one in `run`
  std::vector<Variant> variants;
  std::vector<Axis> axes;
  std::vector<std::uint64_t> seeds;
  Launch launch;
  Value table;  ///< layout of the printed table, for the results side

  /// The variant with this label, or nullptr.
  const Variant* find(std::string_view label) const;
};

/// Parses a sweep file. `overrides` are `key=value` settings of the command line for `[run]`
/// ("epochs=1") or, with the section named, others ("launch.ranks=4"). Throws SpecError with
/// file:line:column on syntax errors, unknown keys, wrong types, unknown parents and cycles.
SweepSpec parse_sweep(const std::filesystem::path& file,
                      const std::vector<std::string>& overrides = {});
SweepSpec parse_sweep_text(std::string_view text, const std::string& name,
                           const std::vector<std::string>& overrides = {});

}  // namespace ablate
