#pragma once

#include <functional>
#include <optional>

#include "methods/method_stack.h"
#include "runner/core/schedule.h"
#include "runner/core/stop.h"
#include "runner/train/checkpoint.h"
#include "runner/train/distillation.h"
#include "runner/train/ema.h"
#include "runner/train/optimizer.h"
#include "runner/train/run_context.h"
#include "runner/train/step_profile.h"
#include "runner/train/step_runner.h"
#include "runner/train/task.h"
#include "runner/train/training_options.h"
#include "runner/train/utilisation.h"

namespace ablate {

/// The loop of one run. It owns nothing but the parts that follow the model's structure (arena,
/// average, step runner); everything else is handed in by whoever assembles the run.
class Trainer {
 public:
  struct Parts {
    const TrainingOptions& options;
    const Schedule& schedule;
    const Task& task;
    const Distillation* distillation;  ///< null without a teacher
    Optimizer& optimizer;
    MethodStack& methods;
    RunContext& context;
    const RunData& data;
    RunLog& log;
    StopSignal& stop;
    Communicator* bn_communicator;  ///< of ForwardState; null when BatchNorm groups are local
    StepProfile* profile;           ///< null: none
    Utilisation* utilisation;       ///< null: not logged
    /// How steps are computed.
    std::function<std::unique_ptr<StepRunner>(StepParts)> make_step_runner;
  };
  struct Callbacks {
    /// After the last step of an epoch that is due for it; `step` is the number of steps done.
    std::function<void(std::int64_t step)> evaluate;
    /// Whether a checkpoint is due by time; asked on rank 0 alone.
    std::function<bool(std::int64_t step)> checkpoint_due;
    std::function<void(std::int64_t step)> save_checkpoint;
  };
  enum class Result { Finished, Stopped };

  Trainer(Parts parts, Callbacks callbacks);
  ~Trainer();

  /// Trains from step `first_step` to the end of the run, or until a stop is asked for, which is
  /// agreed upon by all ranks at a step boundary and answered with a checkpoint. Throws
  /// DivergedError when the loss or gradient is not finite (policy "stop").
  Result fit(std::int64_t first_step);

  /// Optimizer and averaging state by name, for a checkpoint; what restore() takes.
  void save(Checkpoint& checkpoint);
  /// Throws Error when a tensor of the present structure is missing.
  void restore(const Checkpoint& checkpoint);

  /// After edits outside fit(): parameters, state and average follow them.
  void follow_structure();

  /// Null when the run keeps no average.
  Ema* ema() { return ema_ ? &*ema_ : nullptr; }

 private:
  /// Wall time of the steps of an epoch, as far as this attempt made them.
  struct EpochTimes {
    double seconds = 0, waited = 0;
    StageSeconds loading{};  // of this rank's loader threads
    std::int64_t steps = 0;
  };

  at::Tensor batch_loss(const Batch& batch, ForwardState& state);
  StepWishes wishes(std::int64_t step) const;
  StepWishes take_reports(std::int64_t left);
  void meet_nan(const StepReport& report);
  void end_epoch(std::int64_t step, bool last);
  void log_step(const StepReport& report);
  void log_utilisation(std::int64_t step, double images_per_s);
  void log_epoch(std::int64_t step);

  Parts parts_;
  Callbacks callbacks_;
  std::optional<ParameterArena> arena_;
  std::optional<Ema> ema_;
  std::unique_ptr<StepRunner> steps_;
  EpochTimes epoch_;
  bool said_input_bound_ = false;
};

}  // namespace ablate
