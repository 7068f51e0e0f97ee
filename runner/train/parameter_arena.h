#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/gradient_reducer.h"
#include "methods/models/edit.h"
#include "methods/models/parameter_settings.h"
#include "runner/torch/torch.h"

namespace ablate {

class Model;

/// Born as Model::parameter_settings() says; survives structural edits.
using SegmentSettings = ParameterSettings;

/// One parameter's place in the flat buffers, in elements; starts at a multiple of 256 bytes.
struct ArenaSegment {
  std::string name;      ///< qualified name in the model
  at::Tensor parameter;  ///< the module's own tensor: a view of the buffer
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;
  std::int64_t numel = 0;
  /// Takes no weight decay by the usual rule: at most one dimension, or in the model's
  /// no_weight_decay() (Touvron et al., DeiT, 2021).
  bool decay_exempt = false;
  /// In the model's no_weight_decay().
  bool decay_listed = false;
  std::int64_t layers_above = 0;  ///< of parameter_depth.h
  SegmentSettings settings;
};

/// A piece of one active segment: the unit of parallel work and of fixed summation order.
struct ArenaChunk {
  std::size_t segment = 0;
  std::int64_t begin = 0;  ///< in the flat buffers
  std::int64_t count = 0;
};

/// All trained parameters of a model, their gradients and the state that follows them as flat
/// buffers of equal layout, in reverse order of registration (about the order in which backward
/// finishes them). The module's tensors and their `.grad` are views. Parameters are fp32 or fp64,
/// all alike.
class ParameterArena {
 public:
  enum class StateInit { Zeros, Parameters };

  /// Moves the parameters' values into the buffers.
  explicit ParameterArena(Model& model);

  /// Takes over the model's present parameters after structural edits; values, settings and state
  /// of parameters that kept their name survive, sliced as the surgeon notes (throws BugError when
  /// one changed its shape otherwise), new ones start as at construction. Reducers, graphs and
  /// pointers of an older generation are stale.
  void rebuild(Surgeon& surgeon);
  /// The same for a model that lost no channels.
  void rebuild(Model& model, std::int64_t generation);
  std::int64_t generation() const { return generation_; }

  const std::vector<ArenaSegment>& segments() const { return segments_; }
  /// Throws BugError on an unknown name.
  const ArenaSegment& segment(std::string_view name) const;
  /// A change of `active` makes reducers stale, as rebuild() does.
  void configure(std::string_view name, const SegmentSettings& settings);
  /// Active segments in chunks, by ascending offset.
  const std::vector<ArenaChunk>& chunks() const { return chunks_; }

  const at::Tensor& parameters() const { return parameters_; }
  const at::Tensor& gradients() const { return gradients_; }
  /// The named state buffer ("exp_avg", "ema"), made when missing.
  const at::Tensor& state(const std::string& name, StateInit init = StateInit::Zeros);

  /// bfloat16 copies of the parameters, in the same layout: what fused operations multiply by. Made
  /// when first asked for; the device update keeps them, everything else that changes parameters
  /// calls refresh_working().
  const at::Tensor& working();
  void refresh_working();

  /// Optimizer updates done: the `t` of bias corrections, one for all parameters.
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }

  /// Zeroes all gradients by one memset; throws BugError when a parameter or its gradient is no
  /// longer a view of the buffers.
  void zero_grad();

  /// Visits each segment's part of each buffer: buffer "" are the parameters, then the state
  /// buffers by name. The views can be written: saving and loading are the same walk.
  using Visitor =
      std::function<void(const std::string& buffer, const ArenaSegment& segment, at::Tensor view)>;
  void for_each(const Visitor& visit);

  /// A segment's part of a buffer, in the parameter's shape.
  static at::Tensor part(const at::Tensor& buffer, const ArenaSegment& segment);

  // What GradientReducer takes, in the same order.
  std::vector<GradientSegment> gradient_segments() const;
  std::vector<at::Tensor> parameter_tensors() const;

 private:
  struct State {
    at::Tensor values;
    StateInit init;
  };

  using Slices = std::vector<Surgeon::ParameterSlice>;
  void rebuild(Model& model, std::int64_t generation, const Slices& slices);
  void lay_out(Model& model);
  void bind_parameters();
  void cut_chunks();
  at::Tensor make_buffer() const;

  std::vector<ArenaSegment> segments_;
  std::vector<ArenaChunk> chunks_;
  std::map<std::string, State> states_;
  at::Tensor parameters_, gradients_, working_;
  std::int64_t numel_ = 0;  // of a buffer, padding included
  std::int64_t generation_ = 0;
  std::int64_t updates_ = 0;
};

}  // namespace ablate
