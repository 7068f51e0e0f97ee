#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "methods/models/edit.h"
#include "methods/models/model.h"
#include "runner/core/params.h"
#include "runner/core/registry.h"
#include "runner/core/schedule.h"

namespace ablate {

class Communicator;

/// Order in which methods of one run apply; "after" hooks run in reverse.
enum class Phase { Architecture, LayerAttention, AttentionRemoval, Pruning, TokenReduction };

/// Which data a decision may be taken from; the test set is not among them.
enum class DecisionSplit { Train, Holdout };

enum class EpochEdge { Start, End };

/// What the trainer lets a method see and do between steps. Decisions taken from data must be taken
/// on all-reduced statistics, so that every rank decides alike.
class TrainContext {
 public:
  virtual ~TrainContext() = default;

  virtual Surgeon& surgeon() = 0;
  virtual Communicator& communicator() = 0;

  // Position: `step` counts optimizer steps of this run from 0; `epoch` = step / steps_per_epoch.
  virtual std::int64_t step() const = 0;
  virtual std::int64_t steps_per_epoch() const = 0;
  /// Of the run, a begun one counted.
  virtual std::int64_t epochs() const = 0;
  virtual RunLength length() const { return RunLength::of_epochs(steps_per_epoch(), epochs()); }
  std::int64_t epoch() const { return step() / steps_per_epoch(); }
  virtual std::uint64_t seed() const = 0;

  /// Visits the first `samples` samples (all when 0) of a split, without augmentation, in a fixed
  /// order; this rank's share only. The visitor gets images (B, 3, S, S) and weights (B), 0 for
  /// padding. Throws SpecError when the run has no holdout and one is asked for.
  using Visitor = std::function<void(const at::Tensor& images, const at::Tensor& weights)>;
  virtual void visit(DecisionSplit split, std::int64_t samples, const Visitor& visitor) = 0;
  /// The same with labels (B) int64, or of dense sets label maps (B, H, W) of whole numbers, 255
  /// where there is no label.
  using LabelledVisitor = std::function<void(const at::Tensor& images, const at::Tensor& labels,
                                             const at::Tensor& weights)>;
  virtual void visit_labelled(DecisionSplit split, std::int64_t samples,
                              const LabelledVisitor& visitor) = 0;

  /// Multiply-accumulates of one image through the model as it is now.
  virtual std::int64_t macs() = 0;

  /// Spools a deterministic number of this step (once for all ranks), or a rare fact.
  virtual void metric(std::string_view name, double value) = 0;
  virtual void event(std::string_view kind, const nlohmann::json& body) = 0;

  /// Surgeon::apply_neutral(), with its outcome spooled as an event: {"edits": [..],
  /// "max_logit_change": 0}.
  void apply_neutral(const std::vector<Edit>& edits);
};

/// A run as far as its spec tells, before anything of it exists.
struct RunOutline {
  RunLength length;
  Model& base;  ///< without any edit; its parameters hold no values
};

/// One efficiency method: surgery, training hooks, optional state. It touches neither trainer,
/// loader nor store.
class Method {
 public:
  virtual ~Method() = default;

  /// Throws SpecError for settings that the run could not carry out, as far as can be told before
  /// its parents are trained.
  virtual void check(const RunOutline&) const {}
  /// Surgery before optimizer and gradient reducer exist. Weights are loaded and equal on all
  /// ranks, edits inherited from a parent run and those of earlier phases are in place, and data
  /// can be visited (selections). Not called on resume: the recorded edits are replayed instead.
  virtual void apply(TrainContext&) = 0;
  /// Host code before each step: schedules and edits; never captured into a graph.
  virtual void between_steps(TrainContext&) {}
  /// Around each forward pass of a training step, captured with it: what the method asks the pass
  /// for, and what it takes from it. Must not synchronise with the host. When the answer changes,
  /// Surgeon::renew() makes captured steps anew.
  virtual void before_pass(TrainContext&, ForwardState&) {}
  virtual void after_pass(TrainContext&, const ForwardState&) {}
  /// Pure tensor code on the loss, captured; must not synchronise with the host.
  virtual at::Tensor in_step(TrainContext&, at::Tensor loss) { return loss; }
  virtual void on_epoch(TrainContext&, EpochEdge) {}
  /// Drops training-only parts: the model is deployable afterwards.
  virtual void finalize(Surgeon&) {}
  /// False while the model is in transition (a dilution under way): checkpoints taken then are not
  /// deployable and never "best".
  virtual bool settled() const { return true; }
  /// On all ranks before a checkpoint, which rank 0 alone writes: brings together what each rank
  /// holds apart, without changing it, or the moment of a checkpoint would show in the results.
  virtual void before_save(TrainContext&) {}
  /// State that edits do not carry (running statistics, a selection's record).
  virtual nlohmann::json save() const;
  virtual void load(const nlohmann::json& state);
};

/// A small model and settings on which the conformance tests exercise a method.
struct MethodExample {
  std::string model;         ///< registered name
  std::string params;        ///< TOML text of the method's table, name included
  std::string model_params;  ///< TOML text of the model's table without the name
  /// TOML text of settings that would change nothing; they are refused when read or applied.
  std::string idle_params;
  /// Whether, after apply() and up to the first step, the model computes what it did before, bit
  /// for bit: a dilution at lambda = 1.
  bool starts_neutral = false;
};

/// What a method's file registers.
struct MethodInfo {
  static constexpr std::string_view kind = "method";
  std::string_view name, summary, paper;
  int semantics;  ///< raised when the same settings would do something else: part of identities
  Phase phase;
  std::vector<Slot> needs;                  ///< checked against the model before anything is built
  std::vector<std::string_view> conflicts;  ///< names of methods it cannot be combined with
  std::string_view conflict_reason;         ///< shown in the error; empty without conflicts
  std::string_view
      reconstruction;  ///< non-empty: which formula is ours, not the paper's; shown in tables
  std::unique_ptr<Method> (*make)(Params& params);
  MethodExample (*example)();
};

}  // namespace ablate
