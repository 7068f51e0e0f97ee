#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "methods/models/edit.h"
#include "methods/models/model.h"
#include "runner/core/run_spec.h"
#include "runner/train/finals.h"
#include "runner/train/spec_resolver.h"

namespace ablate {

/// A TOML value from the command line: inline ("{ depth = 3 }", "[{ name = \"tome\", r = 4 }]"), or
/// what a file has under `key`. Throws SpecError.
Value toml_argument(const std::string& text, const std::string& key);

/// A registered model with every setting resolved. Throws SpecError.
Component resolve_model(const std::string& name, const Value& settings);

/// Methods of a list as a run table has it, resolved, checked against the model and each other, and
/// sorted. Throws SpecError.
std::vector<Component> resolve_methods(const std::string& model, const Value& list);

/// Makes the structure that a finished run with these methods has, without its training: dilutions
/// are at their end. Throws SpecError when a method must look at data (a search).
void apply_methods(const std::vector<Component>& methods, Surgeon& surgeon);

/// A structure file (final/structure.json) or a resolved spec (spec.json), whose methods are
/// applied as above and whose data set says how many classes there are. Throws SpecError.
Structure read_structure(const std::filesystem::path& file, const DataRoots& data);

/// Likewise of a spec.
Structure structure_of_spec(const RunSpec& spec, const DataRoots& data);

/// A structure's model in its deployable form, weights drawn from `seed`.
std::shared_ptr<Model> build_model(const Structure& structure, at::ScalarType dtype,
                                   std::uint64_t seed);

}  // namespace ablate
