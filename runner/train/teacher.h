#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "methods/models/model.h"
#include "runner/core/params.h"
#include "runner/core/run_spec.h"
#include "runner/train/environment.h"

namespace ablate {

/// A teacher that is no run but a file of weights for a registered model.
struct TeacherFile {
  Component model;
  std::string sha256;          ///< of the file: what a spec knows it by
  std::filesystem::path file;  ///< as the run table names it; empty in a resolved spec
};

/// Reads `teacher = { model = { name = ... }, weights = FILE }` of a `distillation` table, where
/// there is one, and records it by content. The teacher sees its student's images, of side
/// `image_size`. Throws SpecError.
std::optional<TeacherFile> resolve_teacher_file(Params& distillation, std::int64_t image_size);

/// The same out of a resolved spec.
std::optional<TeacherFile> teacher_file_of(const RunSpec& spec);

/// Whom a run learns from: the finished model of another run, or weights of a named model.
struct Teacher {
  std::shared_ptr<Model> model;
  std::string sha256;  ///< of its weights
};

/// Nothing when the run has no teacher. Throws Error when the teacher's run has not finished or its
/// weights do not fit, SpecError when the file is not the one that the spec names.
std::optional<Teacher> load_teacher(const RunSpec& spec, const Environment& environment,
                                    std::int64_t classes, at::ScalarType dtype, at::Device device);

}  // namespace ablate
