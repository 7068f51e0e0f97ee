#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "runner/core/params.h"
#include "runner/core/registry.h"
#include "runner/train/parameter_arena.h"
#include "runner/train/update_kernels.h"

namespace ablate {

/// What changes from update to update.
struct UpdateArguments {
  double lr = 0.0;
  double gradient_scale = 1.0;  ///< the clip factor
  double ema_decay = 0.0;       ///< 0: no moving average
};

class DeviceUpdate;

/// Settings every optimizer has: which parameters lose weight, and how rates fall with depth.
struct DecaySettings {
  double weight_decay;
  bool decay_all;    ///< also parameters that are exempt by rule (He et al., ResNet, 2016)
  bool decay_norms;  ///< of those, biases and norms, but not what the model lists
  /// Factor of the learning rate for each layer between a parameter and the head (Bao et al., BEiT,
  /// 2022); 1: equal rates.
  double layer_decay;

  static DecaySettings read(Params& params, double default_decay);
};

/// What one segment's update computes with.
struct SegmentRates {
  double lr_factor, weight_decay;
};
SegmentRates rates_of(const ArenaSegment& segment, const DecaySettings& settings);

/// An update rule; its state are named buffers of the arena.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Makes the state buffers, so that a checkpoint can fill them before the first update.
  virtual void prepare(ParameterArena& arena) const = 0;
  /// One update of all active segments in one pass over the buffers: clip factor, decay, rule,
  /// clamp and moving average (buffer "ema"). Counts itself in arena.updates(). Bitwise independent
  /// of the number of threads.
  virtual void step(ParameterArena& arena, const UpdateArguments& arguments) const = 0;

  /// Settings that the table of a device update is made from.
  virtual const DecaySettings& decay() const = 0;
  /// The same update as kernels on the current stream: norm, clipping, rule, clamp, average and
  /// working copies, with the numbers that are in device memory by then. Can be captured.
  virtual void enqueue(ParameterArena& arena, DeviceUpdate& update) const = 0;
};

struct OptimizerInfo {
  static constexpr std::string_view kind = "optimizer";
  std::string_view name, summary;
  int semantics;  ///< raised when the same settings would compute something else
  std::unique_ptr<Optimizer> (*make)(Params& params);
};

/// The setting `lr` of an optimizer's table: the schedule's peak. Read apart from make(), because
/// it belongs to the schedule.
double read_base_lr(Params& params);

/// Name of the moving average's buffer, which begins as a copy of the parameters.
inline constexpr const char* kEmaState = "ema";

/// Runs `update` on all chunks, in parallel, with the arguments every rule shares filled in. For
/// the implementations of Optimizer::step.
template <typename T>
void for_each_span(ParameterArena& arena, const UpdateArguments& arguments,
                   const DecaySettings& decay,
                   const std::function<void(const UpdateSpan<T>&, std::int64_t begin)>& update);

/// Euclidean norm of all active gradients: chunk sums in double, added in fixed order, hence
/// bitwise independent of threads. Not finite when a gradient is not.
double gradient_norm(const ParameterArena& arena);

/// Factor that brings `norm` down to `max_norm`: min(1, max_norm / (norm + 1e-6)), torch's rule;
/// max_norm 0 means no clipping.
double clip_factor(double norm, double max_norm);

}  // namespace ablate
