#include "runner/train/device_forward.h"

#include "methods/models/model.h"
#include "runner/train/run_gate.h"

namespace ablate {

DeviceForward::DeviceForward(Parts parts)
    : parts_(std::move(parts)),
      stream_(stream_for_capture(parts_.model.parameters().front().get_device())) {
  const at::Device device = parts_.model.parameters().front().device();
  const std::int64_t side = parts_.model.image_size();
  images_ = at::zeros({parts_.batch, 3, side, side},
                      at::TensorOptions().dtype(at::kFloat).device(device));
  if (parts_.fused) {
    context_.emplace(device);
    context_->bind_for_inference(parts_.model);
    context_->gemm().set_choices(parts_.choices);
  }
  c10::cuda::device_synchronize();
}

DeviceForward::~DeviceForward() {
  static_cast<void>(wait_quietly(stream_));
  graph_.reset();
}

void DeviceForward::refresh_weights() {
  if (!context_) return;            // plain operations read the parameters themselves
  c10::cuda::device_synchronize();  // updates may come from other streams
  const c10::cuda::CUDAStreamGuard guard(stream_);
  context_->refresh_for_inference();
}

void DeviceForward::enqueue(const at::Tensor& images) {
  const c10::cuda::CUDAStreamGuard guard(stream_);
  const at::NoGradGuard no_grad;
  if (!images.is_same(images_)) images_.copy_(images, true);
  if (!prepared_) prepare();
  if (graph_.captured()) {
    graph_.replay();
  } else {
    run();
  }
}

/// One pass chooses algorithms, another is made with those settled upon, before capture.
void DeviceForward::prepare() {
  const RunGate::Alone alone(RunGate::of_process());
  c10::cuda::device_synchronize();
  if (context_) context_->gemm().set_timing(true);
  run();
  if (context_) {
    context_->gemm().set_timing(false);
    if (parts_.settle) context_->gemm().set_choices(parts_.settle(context_->gemm().choices()));
  }
  run();
  graph_.capture([this] { run(); }, "evaluation");
  prepared_ = true;
}

void DeviceForward::run() {
  ForwardState state;
  state.fused = context_ ? &*context_ : nullptr;
  logits_ = parts_.model.forward(images_, state);
}

const at::Tensor& DeviceForward::wait() {
  stream_.synchronize();
  return logits_;
}

}  // namespace ablate
