#pragma once

#include <map>
#include <string>

#include "runner/train/parameter_arena.h"

namespace ablate {

/// Exponential moving average of a model's parameters and floating-point buffers (BatchNorm's
/// running statistics): e <- d e + (1 - d) w after every update, begun at the values of
/// construction, without bias correction (as DeiT's recipe has it).
///
/// The parameters' part is the arena's buffer "ema", updated inside Optimizer::step(); integer
/// buffers are not averaged.
class Ema {
 public:
  Ema(Model& model, ParameterArena& arena, double decay);

  double decay() const { return decay_; }
  /// Belongs after every optimizer update.
  void update_buffers();
  /// The same where the host does not know whether there was an update: `updated` is 1 or 0, a
  /// scalar on the device of the buffers. Can be captured.
  void update_buffers(const at::Tensor& updated);
  /// Follows ParameterArena::rebuild(): averages of buffers that kept their name survive.
  void rebuild(Model& model);

  /// Averages of buffers by qualified name, for checkpoints; they can be written.
  const std::map<std::string, at::Tensor>& buffers() const { return averages_; }

  /// While it lives, the model computes with the averages and the averages hold the model's values.
  class Swap {
   public:
    explicit Swap(Ema& ema) : ema_(ema) { ema_.exchange(); }
    ~Swap() { ema_.exchange(); }
    Swap(const Swap&) = delete;
    Swap& operator=(const Swap&) = delete;

   private:
    Ema& ema_;
  };

 private:
  void exchange();

  ParameterArena& arena_;
  double decay_;
  std::map<std::string, at::Tensor> live_, averages_;  // same keys
};

}  // namespace ablate
