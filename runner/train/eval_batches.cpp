#include "runner/train/eval_batches.h"

#if ABLATE_HAS_CUDA
#include "datasets/device/device_crops.h"
#endif

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

#if ABLATE_HAS_CUDA

class CroppedBatches final : public EvalBatches {
 public:
  CroppedBatches(std::unique_ptr<CropEvalLoader> loader, at::Device device)
      : loader_(std::move(loader)), crops_(*loader_, device) {}
  void start() override {
    loader_->start();
    crops_.drop();
    number_ = 0;
  }
  std::int64_t batches() const override { return loader_->batches(); }
  /// The batch after it is sent on its way, too: it is made beside the work on this one.
  Batch next() override {
    const Batch& batch = crops_.next(c10::cuda::getCurrentCUDAStream());
    if (++number_ < batches()) crops_.prefetch();
    return batch;
  }

 private:
  std::unique_ptr<CropEvalLoader> loader_;
  DeviceCrops crops_;
  std::int64_t number_ = 0;
};

#endif

}  // namespace

std::unique_ptr<EvalBatches> make_host_batches(std::unique_ptr<EvalLoader> loader) {
  return std::make_unique<HostBatches>(std::move(loader));
}

std::unique_ptr<EvalBatches> make_resident_batches(std::unique_ptr<ResidentEvalLoader> loader) {
  return std::make_unique<ResidentBatches>(std::move(loader));
}

#if ABLATE_HAS_CUDA

std::unique_ptr<EvalBatches> make_cropped_batches(std::unique_ptr<CropEvalLoader> loader,
                                                  at::Device device) {
  return std::make_unique<CroppedBatches>(std::move(loader), device);
}

#endif

}  // namespace ablate
