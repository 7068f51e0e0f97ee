#include "runner/train/run_model.h"

#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"

namespace ablate {
namespace {

constexpr std::string_view kModelPrefix = "model.";

Structure base_structure(const RunSpec& spec, const TrainingOptions& options,
                         std::int64_t classes) {
  return {.model = spec.model, .classes = classes, .bn_group = options.bn_group, .edits = {}};
}

void start_from_parent(RunModel& made, const Finals& finals, bool ema) {
  const std::filesystem::path& weights = ema ? finals.ema_weights : finals.weights;
  if (weights.empty()) {
    throw Error(cat("from_weights = \"ema\", but the parent run in ",
                    finals.weights.parent_path().string(),
                    " kept no weight average; train it with ema_decay > 0"));
  }
  load_weights(*made.model, weights);
  made.init_sha256 = sha256_hex(weights);
}

void start_from_file(RunModel& made, const RunSpec& spec, const std::filesystem::path& file) {
  if (file.empty()) {
    throw SpecError("the spec starts from a weights file; name it with --init FILE");
  }
  made.init_sha256 = sha256_hex(file);
  if (made.init_sha256 != spec.init_sha256) {
    throw SpecError(cat(file.string(), ": not the weights the spec was resolved with (SHA-256 ",
                        made.init_sha256, ", expected ", spec.init_sha256, ")"));
  }
  Params params(*spec.training.find("init"), "init");
  load_weights(*made.model, file, read_load_options(params));
}

/// Shapes of what a start from the parent takes over as it is.
std::map<std::string, std::vector<std::int64_t>> fixed_shapes(const Component& model,
                                                              std::int64_t classes) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  const auto built = build_base_model({.model = model, .classes = classes, .edits = {}});
  for (const auto& [name, tensor] : named_tensors(*built)) {
    if (!is_position_embedding(name)) shapes[name] = tensor.sizes().vec();
  }
  return shapes;
}

/// Settings without those in which a run may differ from the one it is made from.
Value inherited_settings(const Component& model) {
  Value settings = model.params;
  for (const char* key : {"image_size", "drop_path", "drop_path_mode"}) {
    settings.as_table().erase(key);
  }
  return settings;
}

}  // namespace

LoadOptions read_load_options(Params& init) {
  LoadOptions options;
  options.reset_head = init.boolean(
      "reset_head", false, "draw a new classifier when the file's has another class count");
  const std::string positions = init.choice(
      "pos_embed", "bicubic", {"bicubic", "bicubic_antialias", "bilinear"},
      "how position embeddings are brought to another image size: as DeiT and mmsegmentation, as "
      "recent timm, as Segmenter");
  if (positions == "bicubic_antialias") options.positions = PositionResize::BicubicAntialias;
  if (positions == "bilinear") options.positions = PositionResize::Bilinear;
  return options;
}

void check_parent_model(const std::string& where, const Component& model, const Component& parent,
                        std::int64_t classes) {
  if (model == parent) return;
  const auto refuse = [&](const std::string& what) {
    throw SpecError(cat(where, ": the parent run is a ", parent.name, what,
                        "; a run made from it has the same model (leave the key out to inherit it "
                        "from [run]), in which only image_size, drop_path and drop_path_mode may "
                        "differ"));
  };
  if (model.name != parent.name || model.semantics != parent.semantics ||
      inherited_settings(model).canonical() != inherited_settings(parent).canonical()) {
    refuse(" with other settings");
  }
  if (fixed_shapes(model, classes) != fixed_shapes(parent, classes)) {
    refuse(" whose weights have other shapes at its image size");
  }
}

RunModel make_start_model(const RunSpec& spec, const TrainingOptions& options,
                          const Environment& environment, std::int64_t classes,
                          at::ScalarType dtype, at::Device device, Communicator& world) {
  RunModel made;
  made.model = build_base_model(base_structure(spec, options, classes));
  made.surgeon = std::make_unique<Surgeon>(*made.model);
  made.model->initialize(spec.seed);
  std::optional<Finals> parent;
  if (const Parent* init = spec.parent("init")) {
    parent = read_finals(RunPaths(environment.out, init->run_id).final_directory());
    replay(parent->structure.edits, *made.surgeon);
  }
  // Before weights are read: they may be more precise than what a model is born with.
  move_model(*made.model, device, dtype);
  if (parent) {
    start_from_parent(made, *parent, options.from_weights == "ema");
  } else if (!spec.init_sha256.empty()) {
    start_from_file(made, spec, environment.init_file);
  }
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : named_tensors(*made.model)) world.broadcast(tensor);
  return made;
}

RunModel make_resumed_model(const RunSpec& spec, const TrainingOptions& options,
                            const Checkpoint& checkpoint, std::int64_t classes,
                            at::ScalarType dtype, at::Device device) {
  RunModel made;
  made.model = build_base_model(base_structure(spec, options, classes));
  made.surgeon = std::make_unique<Surgeon>(*made.model);
  std::vector<Edit> edits;
  for (const auto& edit : checkpoint.state.at("edits")) edits.push_back(edit_from_json(edit));
  replay(edits, *made.surgeon);
  move_model(*made.model, device, dtype);
  made.init_sha256 = checkpoint.state.at("init_sha256").get<std::string>();
  std::map<std::string, at::Tensor> stored(checkpoint.tensors.begin(), checkpoint.tensors.end());
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : named_tensors(*made.model)) {
    const auto found = stored.find(cat(kModelPrefix, name));
    if (found == stored.end()) throw Error(cat("the checkpoint has no tensor ", name));
    tensor.copy_(found->second);
  }
  return made;
}

NamedTensors model_tensors(const Model& model) {
  NamedTensors tensors;
  for (auto& [name, tensor] : named_tensors(model)) {
    tensors.emplace_back(cat(kModelPrefix, name), tensor);
  }
  return tensors;
}

Structure structure_of(const RunSpec& spec, const TrainingOptions& options, std::int64_t classes,
                       const Surgeon& surgeon) {
  Structure structure = base_structure(spec, options, classes);
  structure.edits = surgeon.edits();
  return structure;
}

}  // namespace ablate
