#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "methods/models/slots.h"
#include "runner/core/schedule.h"
#include "runner/train/ema.h"
#include "runner/train/optimizer.h"
#include "runner/train/run_data.h"
#include "runner/train/training_options.h"

namespace ablate {

class Communicator;
class Model;

/// What one rank asks of all of them at the end of a step.
struct StepWishes {
  bool stop = false;
  bool checkpoint = false;
};

/// What one optimizer step told; but for the time equal on all ranks.
struct StepReport {
  std::int64_t step = 0;
  double loss = 0;       ///< mean over the global batch
  double grad_norm = 0;  ///< of the mean gradient over all ranks, before clipping
  double lr = 0;
  bool finite = true;  ///< otherwise the update was left out
  double seconds = 0;
  double waited = 0;       ///< of these, for images
  StageSeconds loading{};  ///< of this rank's loader threads meanwhile
  StepWishes wishes{};     ///< of any rank
};

/// Forward pass and loss of one micro-batch, the terms of teacher and methods included. The state
/// brings what depends on how the step is computed; the rest is filled in.
using BatchLoss = std::function<at::Tensor(const Batch&, ForwardState&)>;

/// What computing the steps of a run needs; all of it outlives the runner.
struct StepParts {
  const TrainingOptions& options;
  const Schedule& schedule;
  const Optimizer& optimizer;
  Communicator& communicator;
  Model& model;
  const RunData& data;
  ParameterArena& arena;
  Ema* ema;  ///< null when the run keeps no average
  BatchLoss loss;
  bool exact_images;  ///< the loss reads them beside the model, which may round them
  std::uint64_t seed;
};

/// Computes optimizer steps: gradient of the mean loss over the global batch, averaged over ranks,
/// clipping, update, running statistics. Steps may still be under way when begin() returns, so
/// their reports come later, in order; every rank gets them at the same points of its program.
class StepRunner {
 public:
  virtual ~StepRunner() = default;

  /// Steps will begin with this one; once, before the first.
  virtual void seek(std::int64_t step) = 0;
  /// Begins step `step`, on the images that belong to it. In order.
  virtual void begin(std::int64_t step, const StepWishes& wishes) = 0;
  /// The oldest report not yet taken, once more than `left` of them are outstanding. Waits for it.
  virtual std::optional<StepReport> report(std::int64_t left) = 0;
  /// Reports that may be outstanding without slowing the steps down.
  virtual std::int64_t lag() const = 0;

  /// Around a change of the arena's layout: forgets everything that points into the old one, then
  /// follows the new one. Outstanding reports stay.
  virtual void leave_structure() = 0;
  virtual void enter_structure() = 0;
};

}  // namespace ablate
