#include "runner/train/device_forward.h"

#include "methods/models/model.h"

namespace ablate {
namespace {

constexpr int kEagerPasses = 2;  // before capture: algorithms, lazily made handles

}  // namespace

DeviceForward::DeviceForward(Model& model, std::int64_t batch)
    : model_(model),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)),
      context_(model.parameters().front().device()) {
  const std::int64_t side = model.image_size();
  images_ = at::zeros({batch, 3, side, side},
                      at::TensorOptions().dtype(at::kFloat).device(context_.device()));
  context_.bind_for_inference(model);
  context_.gemm().set_timing(true);
  c10::cuda::device_synchronize();
}

DeviceForward::~DeviceForward() {
  if (graph_) {
    stream_.synchronize();
    graph_->reset();
  }
}

void DeviceForward::enqueue(const at::Tensor& images) {
  const c10::cuda::CUDAStreamGuard guard(stream_);
  const at::NoGradGuard no_grad;
  if (!images.is_same(images_)) images_.copy_(images, true);
  if (!graph_ && eager_passes_ < kEagerPasses) {
    ++eager_passes_;
    return run();
  }
  if (!graph_) {
    stream_.synchronize();
    context_.gemm().set_timing(false);
    c10::cuda::CUDACachingAllocator::emptyCache();
    graph_ = std::make_unique<at::cuda::CUDAGraph>();
    graph_->capture_begin();
    run();
    graph_->capture_end();
  }
  graph_->replay();
}

void DeviceForward::run() {
  ForwardState state;
  state.fused = &context_;
  logits_ = model_.forward(images_, state);
}

const at::Tensor& DeviceForward::wait() {
  stream_.synchronize();
  return logits_;
}

}  // namespace ablate
