#pragma once

#include <cstdint>
#include <string>

#include "methods/models/model.h"
#include "runner/core/params.h"
#include "runner/core/run_spec.h"
#include "runner/train/training_options.h"

namespace ablate {

// Combinations of settings that no registered part sees alone, and that a run would fail on only
// later. Each throws SpecError "file:line:column: what, and what would be accepted"; `run` is the
// table that the settings stand in.

/// Every rank takes an equal slice of the global batch.
void check_slices(const Params& run, const TrainingOptions& options, int ranks);

/// Partners of mixup and cutmix are on one rank.
void check_mix_groups(const Params& run, const TrainingOptions& options, int ranks);

/// A method that decides on held-out samples (by its setting `decide_on`) needs some. `where` is
/// the place of the method.
void check_decision_data(const std::string& where, const Component& method, std::int64_t holdout);

/// The network gets images of the side that it, and the count of its costs, is made for.
void check_image_size(const std::string& where, std::int64_t augmented, std::int64_t model);

/// A part of a run that is about pixels goes with data whose pixels have labels, any other with
/// other data. `kind` and `name` are the part's ("task", "classification"), `where` its place.
void check_density(const std::string& where, std::string_view kind, std::string_view name,
                   bool dense, std::string_view dataset, bool dense_data);

/// `init` is the parent run that weights come from, or null.
void check_start_weights(const Params& run, const TrainingOptions& options, const RunSpec* init);

/// Training of the model needs a teacher when it has a distillation head that nobody has trained:
/// evaluation averages both heads. `taught` says that there is a teacher, or trained weights.
void check_distillation_head(const std::string& where, const ModelInfo& info,
                             const Component& model, std::int64_t epochs, bool taught);

/// A teacher sees its student's images.
void check_teacher_images(const Params& run, const RunSpec& student, const RunSpec& teacher);

}  // namespace ablate
