#include "runner/train/run_compute.h"

#include <nlohmann/json.hpp>

#include "runner/train/device_eval_forward.h"
#include "runner/train/device_step_runner.h"
#include "runner/train/host_step_runner.h"

namespace ablate {

RunCompute::RunCompute(const Environment& environment, const TrainingOptions& options,
                       Communicator& world)
    : fused_(options.fused()),
      dtype_(options.precision == "fp64" ? at::kDouble : at::kFloat),
      device_(environment, options, world) {
  if constexpr (ABLATE_HAS_CUDA) {
    if (!device_.is_cuda()) return;
    record_.emplace(environment.out, kernels::Gemm::platform(device().index()), world);
  }
}

RunCompute::~RunCompute() = default;

nlohmann::json RunCompute::save() const {
  return record_ ? record_->save() : nlohmann::json::object();
}

void RunCompute::load(const nlohmann::json& saved) {
  if (record_ && !saved.empty()) record_->load(saved);
}

std::unique_ptr<StepRunner> RunCompute::make_step_runner(StepParts parts) {
  if constexpr (ABLATE_HAS_CUDA) {
    if (record_) return make_device_step_runner(std::move(parts), fused_, *record_);
  }
  return make_host_step_runner(std::move(parts), dtype_);
}

std::unique_ptr<EvalForward> RunCompute::make_forward(Surgeon& surgeon, const Task& task) {
  if constexpr (ABLATE_HAS_CUDA) {
    // A captured pass has one size.
    if (fused_ && !task.asks_any_size()) return make_device_forward(surgeon, *record_);
  }
  return make_plain_forward(surgeon.model(), dtype_, device());
}

Evaluation RunCompute::evaluate(Surgeon& surgeon, const Task& task, EvalBatches& data,
                                std::int64_t samples) {
  if (!forward_) forward_ = make_forward(surgeon, task);
  return ablate::evaluate(surgeon.model(), *forward_, task, data, samples, device(), ranks());
}

}  // namespace ablate
