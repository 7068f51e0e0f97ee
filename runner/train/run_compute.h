#pragma once

#include <memory>
#include <optional>

#include <nlohmann/json_fwd.hpp>

#include "methods/models/edit.h"
#include "runner/train/evaluate.h"
#include "runner/train/gemm_record.h"
#include "runner/train/run_device.h"
#include "runner/train/step_runner.h"

namespace ablate {

/// How one rank computes a run: device, precision, and the implementations that go with them.
class RunCompute {
 public:
  /// Throws as RunDevice does.
  RunCompute(const Environment& environment, const TrainingOptions& options, Communicator& world);
  ~RunCompute();

  at::Device device() const { return device_.device(); }
  /// Of parameters and, with plain operations, activations.
  at::ScalarType dtype() const { return dtype_; }
  /// As RunDevice says.
  std::optional<double> peak_mebibytes() const { return device_.peak_mebibytes(); }
  /// Collectives on tensors of the device.
  Communicator& ranks() { return device_.ranks(); }

  /// What a checkpoint keeps, so that the continuation computes with the same algorithms.
  nlohmann::json save() const;
  void load(const nlohmann::json& saved);

  std::unique_ptr<StepRunner> make_step_runner(StepParts parts);
  /// evaluate() of the surgeon's model. Always with the same surgeon.
  Evaluation evaluate(Surgeon& surgeon, const Task& task, EvalBatches& data, std::int64_t samples);

 private:
  std::unique_ptr<EvalForward> make_forward(Surgeon& surgeon, const Task& task);

  bool fused_;
  at::ScalarType dtype_;
  RunDevice device_;
  std::optional<GemmRecord> record_;  // on a CUDA device
  std::unique_ptr<EvalForward> forward_;
};

}  // namespace ablate
