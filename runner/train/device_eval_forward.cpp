#include "runner/train/device_eval_forward.h"

#include "methods/models/model.h"
#include "runner/train/device_forward.h"

namespace ablate {
namespace {

/// Residual gains are constants of a captured pass, but a dilution moves them within a structure.
std::vector<double> gains_of(Model& model) {
  std::vector<double> gains;
  for (const Block* block : model.blocks()) {
    gains.push_back(block->attention_gains().skip);
    gains.push_back(block->attention_gains().branch);
  }
  return gains;
}

class FusedEvalForward final : public EvalForward {
 public:
  FusedEvalForward(Surgeon& surgeon, GemmRecord& record) : surgeon_(surgeon), record_(record) {}

  void begin_pass() override {
    if (generation_ != surgeon_.generation() || gains_ != gains_of(surgeon_.model())) {
      forward_.reset();
    }
    if (forward_) forward_->refresh_weights();
  }

  at::Tensor operator()(const Batch& batch) override {
    if (!forward_) make_forward(batch.images.size(0));
    forward_->enqueue(batch.images);
    return forward_->wait();
  }

 private:
  void make_forward(std::int64_t batch) {
    forward_ = std::make_unique<DeviceForward>(DeviceForward::Parts{
        .model = surgeon_.model(),
        .batch = batch,
        .choices = record_.choices(),
        .settle = [this](const kernels::GemmChoices& found) { return record_.settle(found); }});
    generation_ = surgeon_.generation();
    gains_ = gains_of(surgeon_.model());
  }

  Surgeon& surgeon_;
  GemmRecord& record_;
  std::unique_ptr<DeviceForward> forward_;
  std::int64_t generation_ = -1;
  std::vector<double> gains_;
};

}  // namespace

std::unique_ptr<EvalForward> make_device_forward(Surgeon& surgeon, GemmRecord& record) {
  return std::make_unique<FusedEvalForward>(surgeon, record);
}

}  // namespace ablate
