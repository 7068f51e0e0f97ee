#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/edit.h"
#include "methods/models/model.h"
#include "runner/core/run_spec.h"

namespace ablate {

class Ema;

/// A model as data: what a checkpoint, a finished run and a bench job say about structure.
struct Structure {
  Component model;
  std::int64_t classes = 0;
  std::int64_t bn_group = 0;
  std::vector<Edit> edits;

  nlohmann::json to_json() const;
  /// Throws Error when a key is missing or an edit unknown.
  static Structure from_json(const nlohmann::json& json);
  /// Equal structures measure alike, whatever their weights.
  std::string hash() const;
};

/// The base model of a structure, uninitialised and without its edits. Throws SpecError.
std::shared_ptr<Model> build_base_model(const Structure& structure);

/// Floating-point tensors get `dtype`; torch's Module::to would turn counters into fractions, too.
void move_model(Model& model, at::Device device, at::ScalarType dtype);

/// Applies recorded edits to a base model through `surgeon`.
void replay(const std::vector<Edit>& edits, Surgeon& surgeon);

/// What a finished run leaves: weights under timm names and the structure to build them into.
///   final/{structure.json, model.safetensors, ema.safetensors}
struct Finals {
  Structure structure;
  std::filesystem::path weights;      ///< raw
  std::filesystem::path ema_weights;  ///< empty when the run kept no average
};

/// The text of structure.json: the structure, its hash and the id of the run it comes from.
nlohmann::json finals_json(const Structure& structure, const std::string& spec_id);

/// Writes the finals so that the folder appears whole or not at all; `ema` may be null.
/// `before_rename` may throw to give up. Throws Error when the disk is full.
void write_finals(const std::filesystem::path& directory, const Structure& structure,
                  const std::string& spec_id, Model& model, Ema* ema,
                  const std::function<void()>& before_rename);

/// Throws Error when `directory` holds no finals, saying that the run has to be finished first.
Finals read_finals(const std::filesystem::path& directory);

/// The finished model, edits applied and weights loaded.
std::shared_ptr<Model> load_final_model(const Finals& finals, bool ema,
                                        at::ScalarType dtype = at::kFloat,
                                        at::Device device = at::kCPU);

}  // namespace ablate
