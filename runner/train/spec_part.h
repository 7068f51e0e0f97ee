#pragma once

#include <string>
#include <string_view>

#include "runner/core/error.h"
#include "runner/core/params.h"
#include "runner/core/run_spec.h"

namespace ablate {

/// A part of a run table as written: its name and a copy of its settings without the name.
struct NamedPart {
  std::string name;
  Value settings;
  std::string where;  ///< "file:line:column"

  /// Place of a setting; of the part itself where it is not written out.
  std::string place_of(std::string_view key) const;
};

/// Reads `key = "name"` or `key = { name = "...", ... }`; null stands for the default without
/// settings. Without a default the name is required. Throws SpecError.
NamedPart named_part(const Value* raw, std::string_view key, std::string_view default_name);

/// Lets `configure(params)` read the part's settings and returns them with every default written
/// out.
template <typename Configure>
Component resolve_part(const NamedPart& part, std::string_view key, int semantics,
                       Configure configure) {
  Params params(part.settings, cat(key, " \"", part.name, "\""));
  configure(params);
  params.finish();
  return {part.name, semantics, params.resolved()};
}

/// Puts the place in front of what `check` has to say.
template <typename Check>
void check_at(const std::string& where, Check check) {
  try {
    check();
  } catch (const SpecError& error) {
    throw SpecError(cat(where, ": ", error.what()));
  }
}

}  // namespace ablate
