#include "runner/train/spec_checks.h"

#include <numeric>

#include "runner/core/error.h"

namespace ablate {
namespace {

std::int64_t image_size(const RunSpec& spec) {
  return spec.augmentation.params.find("image_size")->as_int();
}

}  // namespace

void check_slices(const Params& run, const TrainingOptions& options, int ranks) {
  const std::int64_t lower = options.global_batch / ranks * ranks;
  if (options.global_batch == lower) return;
  run.fail("global_batch", cat(options.global_batch, " images do not divide among ", ranks,
                               " ranks; use global_batch = ", lower > 0 ? cat(lower, " or ") : "",
                               lower + ranks, ", or another number of ranks"));
}

void check_mix_groups(const Params& run, const TrainingOptions& options, int ranks) {
  const std::int64_t slice = options.global_batch / ranks;
  if (slice % options.mix_group == 0) return;
  const std::int64_t divisor = std::gcd(slice, options.mix_group);
  run.fail("mix_group",
           cat("groups of ", options.mix_group, " images do not divide the ", slice,
               " images of each of ", ranks, " ranks; use ",
               divisor > 1 ? cat("mix_group = ", divisor, " or ") : "", "another global_batch"));
}

void check_decision_data(const std::string& where, const Component& method, std::int64_t holdout) {
  const Value* split = method.params.find("decide_on");
  if (holdout > 0 || !split || split->as_string() != "holdout") return;
  throw SpecError(cat(where, ": method \"", method.name,
                      "\" decides on held-out samples, but there are none; set dataset.holdout = "
                      "N, or decide_on = \"train\""));
}

void check_image_size(const std::string& where, std::int64_t augmented, std::int64_t model) {
  if (augmented == model) return;
  throw SpecError(cat(where, ": augmentation.image_size = ", augmented,
                      ", but the model takes images of ", model,
                      "; leave the key out, or change model.image_size"));
}

void check_density(const std::string& where, std::string_view kind, std::string_view name,
                   bool dense, std::string_view dataset, bool dense_data) {
  if (dense == dense_data) return;
  const auto of = [](bool pixels) {
    return pixels ? "a label for each pixel" : "a label an image";
  };
  throw SpecError(cat(where, ": ", kind, " \"", name, "\" is for ", of(dense), ", but data set \"",
                      dataset, "\" has ", of(dense_data), "; take another ", kind,
                      ", or another data set"));
}

void check_start_weights(const Params& run, const TrainingOptions& options, const RunSpec* init) {
  if (options.from_weights != "ema") return;
  if (!init) {
    run.fail("from_weights",
             "there is no parent run; add from = \"LABEL\" to the variant, or "
             "leave the key to the variants that have one");
  }
  if (init->training.find("ema_decay")->as_double() > 0) return;
  run.fail("from_weights",
           "\"ema\", but the parent run keeps no weight average; give it ema_decay > 0");
}

void check_distillation_head(const std::string& where, const ModelInfo& info,
                             const Component& model, std::int64_t epochs, bool taught) {
  const Value* setting = model.params.find("distilled");
  const bool distilled = info.distilled || (setting && setting->as_bool());
  // Backbones of dense models keep the token, for weights that were trained with it, and have no
  // head.
  if (!distilled || info.dense || taught || epochs == 0) return;
  throw SpecError(cat(where, ": ", model.name,
                      " has a distillation head, which only a teacher trains and half of every "
                      "evaluation hangs on; add teacher = \"LABEL\" to the variant or a file as "
                      "distillation.teacher, start from trained weights, or take the model "
                      "without it"));
}

void check_teacher_images(const Params& run, const RunSpec& student, const RunSpec& teacher) {
  const std::int64_t own = image_size(student), its = image_size(teacher);
  if (own == its) return;
  throw SpecError(cat(run.where(), ": the teacher run takes images of ", its, ", this one of ", own,
                      "; a teacher sees its student's images, so give both one image_size"));
}

}  // namespace ablate
