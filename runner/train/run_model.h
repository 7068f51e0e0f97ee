#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "methods/models/weights_io.h"
#include "runner/train/checkpoint.h"
#include "runner/train/environment.h"
#include "runner/train/finals.h"
#include "runner/train/training_options.h"

namespace ablate {

class Communicator;

/// A model under training and the surgeon that owns its structure.
struct RunModel {
  std::shared_ptr<Model> model;
  std::unique_ptr<Surgeon> surgeon;
  std::string init_sha256;  ///< of the weights it began from; empty when drawn from the seed
};

/// Reads how start weights are taken over from a run table's `init`, all but the file.
LoadOptions read_load_options(Params& init);

/// A run made from another has its model; only the image size and what happens in training alone
/// (drop path) may differ, as long as no weight but position embeddings changes its shape. `where`
/// is the place of the model. Throws SpecError.
void check_parent_model(const std::string& where, const Component& model, const Component& parent,
                        std::int64_t classes);

/// The model before any method of this run: drawn from the seed, or from the init parent's finals
/// (edits and weights), or from a weights file. Equal on all ranks afterwards.
/// Throws Error when the parent has not finished or the file is not the one the spec names.
RunModel make_start_model(const RunSpec& spec, const TrainingOptions& options,
                          const Environment& environment, std::int64_t classes,
                          at::ScalarType dtype, at::Device device, Communicator& world);

/// The model of a checkpoint: base model, recorded edits, parameters and buffers by name.
RunModel make_resumed_model(const RunSpec& spec, const TrainingOptions& options,
                            const Checkpoint& checkpoint, std::int64_t classes,
                            at::ScalarType dtype, at::Device device);

/// Parameters and buffers as a checkpoint keeps them, under "model.".
NamedTensors model_tensors(const Model& model);

/// Structure of the run's model as it is now.
Structure structure_of(const RunSpec& spec, const TrainingOptions& options, std::int64_t classes,
                       const Surgeon& surgeon);

}  // namespace ablate
