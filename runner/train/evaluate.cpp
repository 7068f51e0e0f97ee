#include "runner/train/evaluate.h"

#include "distributed/communicator.h"
#include "methods/models/model.h"

namespace ablate {
namespace {

class PlainForward final : public EvalForward {
 public:
  PlainForward(Model& model, at::ScalarType dtype, at::Device device)
      : model_(model), dtype_(dtype), device_(device) {}

  at::Tensor operator()(const Batch& batch) override {
    ForwardState state;
    state.first_position = batch.first_position;
    return model_.forward(batch.images.to(device_, dtype_), state);
  }

 private:
  Model& model_;
  at::ScalarType dtype_;
  at::Device device_;
};

}  // namespace

std::unique_ptr<EvalForward> make_plain_forward(Model& model, at::ScalarType dtype,
                                                at::Device device) {
  return std::make_unique<PlainForward>(model, dtype, device);
}

Evaluation evaluate(Model& model, EvalForward& forward, const Task& task, EvalBatches& data,
                    std::int64_t samples, at::Device device, Communicator& communicator) {
  const at::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  at::Tensor counts = task.make_counts().to(device);
  at::Tensor correct = at::zeros({samples}, at::kByte);
  auto* right = correct.data_ptr<std::uint8_t>();
  forward.begin_pass();
  data.start();
  for (std::int64_t i = 0; i < data.batches(); ++i) {
    Batch batch = data.next();
    const at::Tensor output = forward(batch);
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
  at::Tensor all_correct = correct.to(device);
  communicator.all_reduce(counts);
  communicator.all_reduce(all_correct);
  model.train(was_training);
  return {task.summarize(counts.cpu()), all_correct.cpu()};
}

}  // namespace ablate
