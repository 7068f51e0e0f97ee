#pragma once

#include <functional>
#include <memory>

#include "methods/method.h"
#include "runner/train/run_log.h"

namespace ablate {

/// What methods see of a run; the trainer advances `step`.
class RunContext final : public TrainContext {
 public:
  /// Visits this rank's share of the first `samples` samples of a split.
  using VisitData =
      std::function<void(DecisionSplit, std::int64_t samples, const LabelledVisitor&)>;

  /// `epochs` is `length` in epochs, a begun one counted.
  RunContext(Surgeon& surgeon, Communicator& communicator, RunLength length, std::int64_t epochs,
             std::uint64_t seed, VisitData visit_data, RunLog* log)
      : surgeon_(surgeon),
        communicator_(communicator),
        length_(length),
        epochs_(epochs),
        seed_(seed),
        visit_data_(std::move(visit_data)),
        log_(log) {}

  Surgeon& surgeon() override { return surgeon_; }
  Communicator& communicator() override { return communicator_; }
  std::int64_t step() const override { return step_; }
  std::int64_t steps_per_epoch() const override { return length_.steps_per_epoch; }
  std::int64_t epochs() const override { return epochs_; }
  RunLength length() const override { return length_; }
  std::uint64_t seed() const override { return seed_; }
  void visit(DecisionSplit split, std::int64_t samples, const Visitor& visitor) override;
  void visit_labelled(DecisionSplit split, std::int64_t samples,
                      const LabelledVisitor& visitor) override;
  std::int64_t macs() override;
  void metric(std::string_view name, double value) override;
  void event(std::string_view kind, const nlohmann::json& body) override;

  void set_step(std::int64_t step) { step_ = step; }

 private:
  Surgeon& surgeon_;
  Communicator& communicator_;
  RunLength length_;
  std::int64_t epochs_;
  std::uint64_t seed_;
  VisitData visit_data_;
  RunLog* log_;  // null where nothing is recorded (forward passes outside a run)
  std::int64_t step_ = 0;
};

}  // namespace ablate
