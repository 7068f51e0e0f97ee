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
/// and (1, 1) leaves no trace. A block without mixer takes only branch = 0; a mask (ResidualGains)
/// wants a branch gain between 0 and 1.
struct SetGains {
  int block;
  double skip, branch;
  GainMask mask = GainMask::None;
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

/// A channel group (channels.h) of a block.
struct ChannelPlace {
  int block;
  std::string group;
  bool operator==(const ChannelPlace&) const = default;
};

/// Groups, alike in shape, about whose channels one vector of scores decides.
struct ChannelSeat {
  std::vector<ChannelPlace> places;
  bool shared = false;  ///< and that for all heads alike
  bool operator==(const ChannelSeat&) const = default;
};

/// Puts gates on channels, whose scores are parameters of the model from then on; `params` as
/// ChannelGates reads them.
struct AttachGates {
  std::vector<ChannelSeat> seats;
  Value params;
  bool operator==(const AttachGates&) const = default;
};

/// Takes all gates away, which leaves no trace.
struct DetachGates {
  bool operator==(const DetachGates&) const = default;
};

/// Puts a reweighting of a kind of make_reweight() on a group of values. The parameters of dynamic
/// ones are partly uninitialised.
struct AttachReweight {
  int block;
  std::string group, kind;
  std::int64_t hidden;
  bool operator==(const AttachReweight&) const = default;
};

/// Multiplies a constant reweighting into the layer that reads the values, which leaves no trace of
/// it.
struct FoldReweight {
  int block;
  std::string group;
  bool operator==(const FoldReweight&) const = default;
};

/// Removes all channels of a group but these, ascending, a multiple of its heads. Once a group.
struct KeepChannels {
  int block;
  std::string group;
  std::vector<std::int64_t> channels;
  bool operator==(const KeepChannels&) const = default;
};

/// One structural change as a value: a checkpoint is base model + edits + named tensors.
using Edit = std::variant<MarkRetiring, RemoveMixer, SetGains, InsertReducer, AttachLayerAttention,
                          SkipRetrieval, DeleteSkipped, AttachGates, DetachGates, AttachReweight,
                          FoldReweight, KeepChannels>;

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

  /// How a parameter of that name became a slice of itself when the generation was reached: moments
  /// and averages follow by parameter.index_select(axis, index).
  struct ParameterSlice {
    std::int64_t generation;
    std::string parameter;
    int axis;
    std::vector<std::int64_t> index;
  };
  /// All of them, in order.
  const std::vector<ParameterSlice>& slices() const { return slices_; }

 private:
  Model& model_;
  std::vector<Edit> edits_;
  std::int64_t generation_ = 0;
  std::vector<ParameterSlice> slices_;
};

/// Hash of base model name, its settings and the edits: equal structures measure alike, whatever
/// their weights.
std::string structure_hash(std::string_view model_name, const Value& model_params,
                           const std::vector<Edit>& edits);

}  // namespace ablate
