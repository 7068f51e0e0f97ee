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

/// Which samples were right, of a set that ranks share.
class SampleRecord {
 public:
  explicit SampleRecord(std::int64_t samples) : correct_(at::zeros({samples}, at::kByte)) {}

  void take(const Batch& batch, const at::Tensor& correct) {
    known_ = correct.defined();
    if (!known_) return;
    const at::Tensor rows = correct.to(at::kByte).cpu();
    auto* right = correct_.data_ptr<std::uint8_t>();
    for (std::size_t row = 0; row < batch.indices.size(); ++row) {
      if (batch.indices[row] >= 0) {
        right[batch.indices[row]] = rows.data_ptr<std::uint8_t>()[row];
      }
    }
  }

  /// Each sample is on one rank only, so the sum over ranks is the union.
  at::Tensor over_ranks(at::Device device, Communicator& communicator) const {
    if (!known_) return {};
    at::Tensor all = correct_.to(device);
    communicator.all_reduce(all);
    return all.cpu();
  }

 private:
  at::Tensor correct_;
  bool known_ = false;
};

void move_labels(Batch& batch, at::Device device) {
  batch.labels = batch.labels.to(device);
  batch.weights = batch.weights.to(device);
  if (batch.label_maps.defined()) batch.label_maps = batch.label_maps.to(device);
}

at::Tensor infer(const Task& task, EvalForward& forward, const Batch& batch) {
  const Network network = [&](const at::Tensor& images) {
    Batch asked;
    asked.images = images;
    asked.first_position = batch.first_position;
    return forward(asked);
  };
  return task.infer(network, batch);
}

}  // namespace

std::unique_ptr<EvalForward> make_plain_forward(Model& model, at::ScalarType dtype,
                                                at::Device device) {
  return std::make_unique<PlainForward>(model, dtype, device);
}

Evaluation evaluate(Model& model, EvalForward& forward, const Task& task, EvalBatches& data,
                    std::int64_t samples, at::Device device, Communicator& communicator,
                    const EvalObserver& observer) {
  const at::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  at::Tensor counts = task.make_counts().to(device);
  SampleRecord record(samples);
  forward.begin_pass();
  data.start();
  for (std::int64_t i = 0; i < data.batches(); ++i) {
    Batch batch = data.next();
    move_labels(batch, device);
    const at::Tensor output = infer(task, forward, batch);
    record.take(batch, task.count(output, batch, counts));
    if (observer) observer(batch, output);
  }
  communicator.all_reduce(counts);
  model.train(was_training);
  counts = counts.cpu();
  return {task.summarize(counts), record.over_ranks(device, communicator), task.details(counts)};
}

}  // namespace ablate
