#include "runner/train/teacher.h"

#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"
#include "runner/train/finals.h"
#include "runner/train/spec_part.h"

namespace ablate {
namespace {

constexpr std::string_view kHelp =
    "weights to learn from: { model = { name = \"...\" }, weights = FILE }";

/// Throws SpecError when the teacher takes other images than its student.
void check_side(const NamedPart& part, const Component& model, std::int64_t image_size) {
  const Value* setting = model.params.find("image_size");
  const std::int64_t side =
      setting ? setting->as_int() : Registry<ModelInfo>::get(model.name).image_size;
  if (side == image_size) return;
  throw SpecError(cat(part.place_of("image_size"), ": the teacher takes images of ", side,
                      ", its student of ", image_size,
                      "; a teacher sees its student's images, so give both one image_size"));
}

Teacher teacher_of_run(const std::filesystem::path& directory, at::ScalarType dtype,
                       at::Device device) {
  const Finals finals = read_finals(directory);
  return {load_final_model(finals, false, dtype, device), sha256_hex(finals.weights)};
}

Teacher teacher_of_file(const TeacherFile& teacher, const std::filesystem::path& file,
                        std::int64_t classes, at::ScalarType dtype, at::Device device) {
  if (file.empty()) {
    throw SpecError("the spec learns from a weights file; name it with --init FILE");
  }
  if (const std::string found = sha256_hex(file); found != teacher.sha256) {
    throw SpecError(cat(file.string(), ": not the teacher's weights that the spec was resolved ",
                        "with (SHA-256 ", found, ", expected ", teacher.sha256, ")"));
  }
  std::shared_ptr<Model> model =
      build_base_model({.model = teacher.model, .classes = classes, .edits = {}});
  move_model(*model, device, dtype);
  try {
    load_weights(*model, file);
  } catch (const Error& error) {
    throw Error(
        cat("the teacher, a ", teacher.model.name, " for ", classes, " classes: ", error.what()));
  }
  return {std::move(model), teacher.sha256};
}

}  // namespace

std::optional<TeacherFile> resolve_teacher_file(Params& distillation, std::int64_t image_size) {
  const Value* raw = distillation.raw("teacher", kHelp);
  if (!raw) return std::nullopt;
  Params params(*raw, "distillation.teacher");
  const NamedPart part = named_part(params.raw("model", "model and its settings"), "model", "");
  const ModelInfo& info = Registry<ModelInfo>::get(part.name, part.where);
  TeacherFile teacher;
  teacher.model = resolve_part(part, "distillation.teacher.model", info.semantics,
                               [&](Params& settings) { info.configure(info.name, settings); });
  teacher.file = params.required_text("weights", "safetensors file with timm names");
  params.finish();
  check_side(part, teacher.model, image_size);
  if (!std::filesystem::is_regular_file(teacher.file)) {
    throw SpecError(cat(params.where("weights"), ": no file ", teacher.file.string()));
  }
  teacher.file = std::filesystem::absolute(teacher.file);
  teacher.sha256 = sha256_hex(teacher.file);
  distillation.record("teacher",
                      Value::Table{{"model", Value::Table{{"name", teacher.model.name},
                                                          {"semantics", teacher.model.semantics},
                                                          {"params", teacher.model.params}}},
                                   {"sha256", teacher.sha256}});
  return teacher;
}

std::optional<TeacherFile> teacher_file_of(const RunSpec& spec) {
  const Value* teacher = spec.training.find_path("distillation.teacher");
  if (!teacher) return std::nullopt;
  const Value* model = teacher->find("model");
  return TeacherFile{
      .model = {model->find("name")->as_string(),
                static_cast<int>(model->find("semantics")->as_int()), *model->find("params")},
      .sha256 = teacher->find("sha256")->as_string(),
      .file = {}};
}

std::optional<Teacher> load_teacher(const RunSpec& spec, const Environment& environment,
                                    std::int64_t classes, at::ScalarType dtype, at::Device device) {
  if (const Parent* run = spec.parent("teacher")) {
    return teacher_of_run(RunPaths(environment.out, run->run_id).final_directory(), dtype, device);
  }
  if (const auto teacher = teacher_file_of(spec)) {
    return teacher_of_file(*teacher, environment.teacher_file, classes, dtype, device);
  }
  return std::nullopt;
}

}  // namespace ablate
