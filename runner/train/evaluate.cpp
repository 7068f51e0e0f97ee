#include "runner/train/evaluate.h"

#include "distributed/communicator.h"
#include "methods/models/model.h"

namespace ablate {

Evaluation evaluate(Model& model, const Task& task, EvalLoader& loader, std::int64_t samples,
                    at::ScalarType dtype, at::Device device, Communicator& communicator) {
  const at::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  at::Tensor counts = task.make_counts();
  at::Tensor correct = at::zeros({samples}, at::kByte);
  auto* right = correct.data_ptr<std::uint8_t>();
  loader.start();
  for (std::int64_t i = 0; i < loader.batches(); ++i) {
    Batch batch = loader.next();
    ForwardState state;
    state.first_position = batch.first_position;
    const at::Tensor output = model.forward(batch.images.to(device, dtype), state);
    batch.labels = batch.labels.to(device);
    batch.weights = batch.weights.to(device);
    const at::Tensor rows = task.count(output, batch, counts).to(at::kByte).cpu();
    for (std::size_t row = 0; row < batch.indices.size(); ++row) {
      // Each sample is on one rank only, so the sum over ranks is the union.
      if (batch.indices[row] >= 0) {
        right[batch.indices[row]] = rows.data_ptr<std::uint8_t>()[row];
      }
    }
  }
  communicator.all_reduce(counts);
  communicator.all_reduce(correct);
  model.train(was_training);
  return {task.summarize(counts), correct};
}

}  // namespace ablate
