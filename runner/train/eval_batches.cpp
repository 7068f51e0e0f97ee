#include "runner/train/eval_batches.h"

namespace ablate {
namespace {

class HostBatches final : public EvalBatches {
 public:
  explicit HostBatches(std::unique_ptr<EvalLoader> loader) : loader_(std::move(loader)) {}
  void start() override { loader_->start(); }
  std::int64_t batches() const override { return loader_->batches(); }
  Batch next() override { return loader_->next(); }

 private:
  std::unique_ptr<EvalLoader> loader_;
};

class ResidentBatches final : public EvalBatches {
 public:
  explicit ResidentBatches(std::unique_ptr<ResidentEvalLoader> loader)
      : loader_(std::move(loader)), buffers_(loader_->make_buffers()) {}
  void start() override {
    loader_->start();
    number_ = 0;
  }
  std::int64_t batches() const override { return loader_->batches(); }
  Batch next() override {
    loader_->enqueue(buffers_, number_++);
    return buffers_;
  }

 private:
  std::unique_ptr<ResidentEvalLoader> loader_;
  Batch buffers_;
  std::int64_t number_ = 0;
};

}  // namespace

std::unique_ptr<EvalBatches> make_host_batches(std::unique_ptr<EvalLoader> loader) {
  return std::make_unique<HostBatches>(std::move(loader));
}

std::unique_ptr<EvalBatches> make_resident_batches(std::unique_ptr<ResidentEvalLoader> loader) {
  return std::make_unique<ResidentBatches>(std::move(loader));
}

}  // namespace ablate
