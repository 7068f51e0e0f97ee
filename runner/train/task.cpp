#include "runner/train/task.h"

#include "methods/models/slots.h"
#include "runner/core/error.h"

namespace ablate {

at::Tensor Task::auxiliary_loss(const at::Tensor&, const Batch&) const {
  throw BugError("a model with an auxiliary head under a task without a term for one");
}

std::unique_ptr<Task> make_task(const Component& task, const DatasetFacts& data) {
  Params params(task.params, cat("task \"", task.name, "\""));
  return Registry<TaskInfo>::get(task.name).make(params, data);
}

at::Tensor pass_loss(const Task& task, const at::Tensor& output, const Batch& batch,
                     const ForwardState& state) {
  const at::Tensor loss = task.loss(output, batch);
  if (!state.auxiliary_logits.defined()) return loss;
  return loss + task.auxiliary_loss(state.auxiliary_logits, batch);
}

}  // namespace ablate
