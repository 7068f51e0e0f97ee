#include "runner/train/device_step.h"

#include <cstring>

#include "methods/models/model.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::int64_t kEagerSteps = 3;  // before capture: algorithms, lazily made handles

}  // namespace

DeviceStep::DeviceStep(const Parts& parts)
    : parts_(parts),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true,
                                           parts.arena.parameters().get_device())),
      context_(parts.arena.parameters().device()),
      update_(parts.arena, parts.optimizer.decay(), parts.ema),
      joins_(parts.model, parts.batch, parts.first_position, parts.seed, context_.device()) {
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(context_.device());
  const std::int64_t side = parts.model.image_size();
  inputs_.images = at::zeros({parts.batch, 3, side, side}, floats);
  inputs_.labels = at::zeros({parts.batch}, floats.dtype(at::kLong));
  loss_ = at::zeros({}, floats);
  staging_ = at::empty({update_.scalars().numel() + joins_.device_block().numel()},
                       at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  parts_.arena.refresh_working();
  const auto& segments = parts_.arena.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    context_.bind(segments[i].parameter,
                  {.working = ParameterArena::part(parts_.arena.working(), segments[i]),
                   .gradient = ParameterArena::part(parts_.arena.gradients(), segments[i]),
                   .index = i});
  }
  context_.gemm().set_timing(true);
  c10::cuda::device_synchronize();
}

DeviceStep::~DeviceStep() {
  if (graph_) {
    stream_.synchronize();
    graph_->reset();
  }
}

void DeviceStep::enqueue(const Batch& batch, const DeviceStepNumbers& numbers) {
  const c10::cuda::CUDAStreamGuard guard(stream_);
  load_inputs(batch);
  write_numbers(numbers);
  if (graph_) {
    graph_->replay();
  } else if (eager_steps_ < kEagerSteps) {
    ++eager_steps_;
    run();
  } else {
    capture();
    graph_->replay();
  }
}

void DeviceStep::load_inputs(const Batch& batch) {
  ABLATE_CHECK(batch.images.size(0) == parts_.batch, batch.images.size(0), " images in a step of ",
               parts_.batch);
  if (&batch == &inputs_) return;
  const at::NoGradGuard no_grad;
  inputs_.images.copy_(batch.images, true);
  inputs_.labels.copy_(batch.labels, true);
  if (!batch.other_labels.defined()) return;
  if (!inputs_.other_labels.defined()) {
    ABLATE_CHECK(!graph_, "mixing began after the step was captured");
    inputs_.other_labels = at::empty_like(inputs_.labels);
    inputs_.mix = at::empty({parts_.batch}, inputs_.images.options());
  }
  inputs_.other_labels.copy_(batch.other_labels, true);
  inputs_.mix.copy_(batch.mix, true);
}

/// One pinned block, reused as soon as its last copy is over.
void DeviceStep::write_numbers(const DeviceStepNumbers& numbers) {
  const kernels::UpdateScalars scalars{.lr = numbers.lr,
                                       .gradient_scale = 1.0,
                                       .max_norm = numbers.clip_norm,
                                       .ema_decay = numbers.ema_decay,
                                       .update = parts_.arena.updates() + 1};
  parts_.arena.set_updates(scalars.update);
  const auto joins = joins_.host_block(numbers.step);
  staged_.synchronize();
  auto* host = static_cast<std::byte*>(staging_.data_ptr());
  std::memcpy(host, &scalars, sizeof scalars);
  std::memcpy(host + sizeof scalars, joins.data(), joins.size());
  const auto first = static_cast<std::int64_t>(sizeof scalars);
  update_.scalars().copy_(staging_.narrow(0, 0, first), true);
  joins_.device_block().copy_(staging_.narrow(0, first, std::ssize(joins)), true);
  staged_.record(stream_);
}

void DeviceStep::run() {
  context_.begin_step();
  parts_.arena.zero_grad();
  joins_.enqueue();
  ForwardState state;
  state.seed = parts_.seed;
  state.first_position = parts_.first_position;
  state.fused = &context_;
  state.join_numbers = joins_.numbers();
  const at::Tensor loss = parts_.task.loss(parts_.model.forward(inputs_.images, state), inputs_);
  loss.backward();
  parts_.optimizer.enqueue(parts_.arena, update_);
  const at::NoGradGuard no_grad;
  loss_.copy_(loss.detach());
}

void DeviceStep::capture() {
  stream_.synchronize();
  context_.gemm().set_timing(false);
  // What eager steps left in the cache would lie unused beside the graph's own pool.
  c10::cuda::CUDACachingAllocator::emptyCache();
  graph_ = std::make_unique<at::cuda::CUDAGraph>();
  graph_->capture_begin();
  run();
  graph_->capture_end();
}

DeviceStepResult DeviceStep::wait() {
  stream_.synchronize();
  kernels::UpdateStatus status{};
  const at::Tensor bytes = update_.status().cpu();
  std::memcpy(&status, bytes.const_data_ptr(), sizeof status);
  return {.loss = loss_.item<double>(), .grad_norm = status.norm, .finite = status.finite != 0};
}

}  // namespace ablate
