#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "methods/models/gain_mask.h"
#include "methods/models/skip_mode.h"
#include "runner/core/value.h"

namespace ablate {

class Model;

/// The mixer of this block will be removed: token reducers keep away from it.
struct MarkRetiring {
  int block;
  bool operator==(const MarkRetiring&) const = default;
};

/// Deletes norm1 and the token mixer of a block; what remains is skip * x followed by the MLP.
struct RemoveMixer {
  int block;
  bool operator==(const RemoveMixer&) const = default;
};

/// Sets the gains of a block's attention join. A later one for the same block replaces an earlier,
/// and (1, 1) leaves no trace. A block without mixer takes only branch = 0.
struct SetGains {
  int block;
  double skip, branch;
  bool operator==(const SetGains&) const = default;
};

/// Puts a token reducer of a registered kind between mixer and MLP of a block.
struct InsertReducer {
  int block;
  std::string reducer;
  Value params;
  bool operator==(const InsertReducer&) const = default;
};

/// Connects `count` blocks, from `block` on among Model::layer_sites(), by modules of a registered
/// kind. Their parameters are born with the values of seed 0.
struct AttachLayerAttention {
  int block, count;
  std::string module;
  Value params;
  bool operator==(const AttachLayerAttention&) const = default;
};

/// Sets how a block's retrieval is skipped. A later one for the same block replaces an earlier, and
/// SkipMode::None leaves no trace. The first block of a group is never skipped.
struct SkipRetrieval {
  int block;
  SkipMode mode;
  bool operator==(const SkipRetrieval&) const = default;
};

/// Deletes what the skip mode of a block's layer attention leaves unused; it cannot be changed
/// afterwards.
struct DeleteSkipped {
  int block;
  bool operator==(const DeleteSkipped&) const = default;
};

/// One structural change as a value: a checkpoint is base model + edits + named tensors.
using Edit = std::variant<MarkRetiring, RemoveMixer, SetGains, InsertReducer, AttachLayerAttention,
                          SkipRetrieval, DeleteSkipped>;

/// {"edit": "remove_mixer", "block": 3}, and back. from_json throws Error on an unknown edit.
nlohmann::json to_json(const Edit& edit);
Edit edit_from_json(const nlohmann::json& json);
/// "remove attention of block 3": for logs.
std::string describe(const Edit& edit);

/// The only hand that touches slots: performs edits and records them.
class Surgeon {
 public:
  explicit Surgeon(Model& model) : model_(model) {}

  /// Performs and records. Throws Error when the model has no such place, or when the edit changes
  /// nothing (an ablation whose method did not apply is a lie).
  void apply(const Edit& edit);
  /// The same for edits of which the caller claims that together they leave what the model computes
  /// as it is: holds the logits of probe() before and after against each other and returns their
  /// largest change, which is 0. Throws Error naming the edits and the change when it is not. Equal
  /// on all ranks without communication, because the weights are.
  double apply_neutral(const std::vector<Edit>& edits);

  /// For a change of what a training step computes besides the structure: captured graphs of the
  /// present generation are stale.
  void renew() { ++generation_; }

  /// Edits that make the present structure from the base model.
  const std::vector<Edit>& edits() const { return edits_; }
  /// Rises whenever parameters appear, vanish, change shape, start or stop to take part (a branch
  /// gain that becomes or leaves 0), or a reducer changes the sequence: arenas, buckets and
  /// captured graphs of an older generation are stale.
  std::int64_t generation() const { return generation_; }
  Model& model() { return model_; }

 private:
  Model& model_;
  std::vector<Edit> edits_;
  std::int64_t generation_ = 0;
};

/// Hash of base model name, its settings and the edits: equal structures measure alike, whatever
/// their weights.
std::string structure_hash(std::string_view model_name, const Value& model_params,
                           const std::vector<Edit>& edits);

}  // namespace ablate
