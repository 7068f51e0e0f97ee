#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runner/core/params.h"

namespace ablate {

/// When a schedule moves. EpochLagged is what timm 0.3.2 and every recipe trained with it does: it
/// steps the scheduler with the index of the epoch just finished, so epoch e runs at f(max(e-1,
/// 0)).
enum class ScheduleGrain { Step, Epoch, EpochLagged };

/// How long a run is, in optimizer steps. `total_steps` need not be whole epochs.
struct RunLength {
  std::int64_t steps_per_epoch = 1;
  std::int64_t total_steps = 0;

  static RunLength of_epochs(std::int64_t steps_per_epoch, std::int64_t epochs) {
    return {steps_per_epoch, steps_per_epoch * epochs};
  }
};

enum class DecayShape { Constant, Linear, Poly, Cosine, Step };

/// The settings of a learning-rate schedule; parameter names follow timm where it has them.
struct ScheduleSettings {
  DecayShape shape = DecayShape::Constant;
  ScheduleGrain grain = ScheduleGrain::Step;
  double warmup_epochs = 0;
  std::int64_t warmup_steps = 0;  ///< instead of warmup_epochs, when positive
  double warmup_lr = 0;
  bool warmup_scaled = false;  ///< warm-up is a factor on the decaying rate (mmcv 1.x)
  bool warmup_prefix = false;  ///< the decay starts after the warm-up instead of under it
  bool endpoint = false;       ///< the last unit of each phase reaches its end value (mmengine)
  double cooldown_epochs = 0;
  double min_lr = 0;
  double power = 1;                           ///< Poly
  std::vector<double> milestones;             ///< Step: epochs from which the rate is lower
  std::vector<std::int64_t> milestone_steps;  ///< Step: the same in optimizer steps
  double decay_epochs = 0;                    ///< Step: a drop every so many epochs, when positive
  double decay_rate = 1;                      ///< Step: factor of one drop
};

/// Raised when the same settings would give other rates: part of a run's identity.
inline constexpr int kScheduleSemantics = 1;

/// The names a spec may use: constant, cosine, linear, poly, step.
const std::vector<std::string>& schedule_names();

/// Reads the settings that the named schedule has. Does not call finish(). Throws SpecError.
ScheduleSettings read_schedule(std::string_view name, Params& params);

/// Learning rate as a pure function of the optimizer step. With time t, warm-up length w and run
/// length T in units of the grain (steps or epochs), base rate b:
///
///   t < w:  warmup_lr + t (b - warmup_lr) / w, or with warmup_scaled
///           decay(t) (1 - (1 - t/w)(1 - warmup_lr/b))
///   else:   decay(t); u = t/T, with warmup_prefix (t-w)/(T-w), held at 1 from T on (cooldown)
///           cosine  min_lr + (b - min_lr)(1 + cos(pi u)) / 2
///           linear  min_lr + (b - min_lr)(1 - u);   poly: (1 - u)^power
///           step    b decay_rate^(drops so far)
///
/// `endpoint` takes one unit off w and off T (of T - w with warmup_prefix) in those quotients.
/// A min_lr above b is allowed: the rate then rises, as published CIFAR recipes do by accident.
class Schedule {
 public:
  /// Throws SpecError when the warm-up is longer than the run.
  Schedule(ScheduleSettings settings, double base_lr, RunLength length);

  /// The rate of the update number `step`, counted from 0.
  double lr(std::int64_t step) const;

 private:
  double decay(double time) const;
  double drops(double time) const;

  ScheduleSettings settings_;
  double base_lr_;
  RunLength length_;
  double warmup_;  // w and T in units of the grain
  double total_;
};

/// A scalar that falls from exactly 1 to exactly 0 over `epochs` and stays there: the mask value
/// lambda of attention dilution, say.
struct FadeSettings {
  enum class Shape { Linear, Cosine, Step };
  Shape shape = Shape::Linear;
  ScheduleGrain grain = ScheduleGrain::Epoch;
  double epochs = 1;
  std::int64_t levels = 1;  ///< Step: number of equal drops
};

/// Reads PREFIX_shape, PREFIX_per, PREFIX_epochs and PREFIX_levels. Throws SpecError.
FadeSettings read_fade(Params& params, const std::string& prefix, double default_epochs);

/// The scalar at an optimizer step, counted from 0; with the grain Epoch it is constant within one.
double fade(const FadeSettings& settings, std::int64_t step, std::int64_t steps_per_epoch);

}  // namespace ablate
