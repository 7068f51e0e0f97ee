#include "runner/train/device_step.h"

#include <algorithm>
#include <cstring>

#include "distributed/communicator.h"
#include "methods/models/batch_norm.h"
#include "methods/models/model.h"
#include "runner/core/error.h"
#include "runner/train/run_gate.h"

namespace ablate {
namespace {

// Before capture: algorithms are chosen, handles made, and one step done with what was settled.
constexpr std::int64_t kEagerSteps = 3;
constexpr std::int64_t kAgreedNumbers = 3;

at::Tensor pinned_bytes(std::int64_t count) {
  return at::zeros({count}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
}

at::Tensor doubles_on(at::Device device, std::int64_t count) {
  return at::zeros({count}, at::TensorOptions().dtype(at::kDouble).device(device));
}

std::byte* bytes_of(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

}  // namespace

DeviceStep::DeviceStep(Parts parts)
    : parts_(std::move(parts)),
      stream_(stream_for_capture(parts_.arena.parameters().get_device())),
      agreed_(doubles_on(parts_.arena.parameters().device(), kAgreedNumbers)),
      wishes_(doubles_on(parts_.arena.parameters().device(), kAgreedNumbers - 1)),
      update_(parts_.arena, parts_.optimizer.decay(),
              {.ema = parts_.ema != nullptr, .working = parts_.fused, .loss = agreed_}),
      norms_(parts_.model, parts_.batch * parts_.micro_batches * ranks()) {
  if (parts_.fused) bind_parameters();
  if (ranks() > 1) {
    hold_ = parts_.communicator->hold();
    reducer_ = std::make_unique<GradientReducer>(
        *parts_.communicator, parts_.arena.gradients(), parts_.arena.gradient_segments(),
        parts_.arena.parameter_tensors(), ReducerOptions{.wire = parts_.wire, .average = false});
  }
  make_micro_batches();
  make_slots();
  // What was prepared on other streams is there.
  c10::cuda::device_synchronize();
}

DeviceStep::~DeviceStep() {
  if (!wait_quietly(stream_)) {
    // Freeing pinned memory asks the device, which answers no more.
    for (Slot& slot : slots_) static_cast<void>(new Slot(std::move(slot)));
  }
  graph_.reset();
}

void DeviceStep::bind_parameters() {
  context_.emplace(parts_.arena.parameters().device());
  parts_.arena.refresh_working();
  for (const ArenaSegment& segment : parts_.arena.segments()) {
    context_->bind(segment.parameter,
                   {.working = ParameterArena::part(parts_.arena.working(), segment),
                    .gradient = ParameterArena::part(parts_.arena.gradients(), segment)});
  }
  context_->gemm().set_choices(parts_.choices);
  context_->gemm().set_timing(true);
}

Batch DeviceStep::room_for_inputs() const {
  if (parts_.make_inputs) return parts_.make_inputs();
  const auto floats =
      at::TensorOptions().dtype(at::kFloat).device(parts_.arena.parameters().device());
  const std::int64_t side = parts_.model.image_size();
  Batch inputs;
  inputs.images = at::zeros({parts_.batch, 3, side, side},
                            parts_.half_images ? floats.dtype(at::kBFloat16) : floats);
  inputs.labels = at::zeros({parts_.batch}, floats.dtype(at::kLong));
  return inputs;
}

void DeviceStep::make_micro_batches() {
  for (std::int64_t i = 0; i < parts_.micro_batches; ++i) {
    MicroBatch micro{.inputs = room_for_inputs(), .joins = nullptr};
    micro.inputs.first_position = parts_.first_position + i * parts_.batch;
    micro.joins =
        std::make_unique<DeviceJoins>(parts_.model, parts_.batch, micro.inputs.first_position,
                                      parts_.seed, parts_.arena.parameters().device());
    micro_batches_.push_back(std::move(micro));
  }
}

void DeviceStep::make_slots() {
  auto numbers = update_.scalars().numel() + static_cast<std::int64_t>(wishes_.nbytes());
  for (const MicroBatch& micro : micro_batches_) numbers += micro.joins->device_block().numel();
  const auto report = static_cast<std::int64_t>(agreed_.nbytes()) + update_.status().numel();
  for (Slot& slot : slots_) {
    slot = {.numbers = pinned_bytes(numbers),
            .report = pinned_bytes(report),
            .begun = std::make_unique<at::cuda::CUDAEvent>(cudaEventDefault),
            .done = std::make_unique<at::cuda::CUDAEvent>(cudaEventDefault)};
  }
}

int DeviceStep::ranks() const { return parts_.communicator ? parts_.communicator->size() : 1; }

const std::int64_t* DeviceStep::device_step() const {
  return micro_batches_.front().joins->device_step();
}

void DeviceStep::load(std::int64_t micro_batch, const Batch& batch) {
  ABLATE_CHECK(batch.images.size(0) == parts_.batch, batch.images.size(0), " images in a step of ",
               parts_.batch);
  const c10::cuda::CUDAStreamGuard guard(stream_);
  const at::NoGradGuard no_grad;
  Batch& inputs = micro_batches_[static_cast<std::size_t>(micro_batch)].inputs;
  inputs.images.copy_(batch.images, true);
  inputs.labels.copy_(batch.labels, true);
  if (batch.label_maps.defined()) {
    if (!inputs.label_maps.defined()) {
      inputs.label_maps =
          at::empty(batch.label_maps.sizes(), inputs.images.options().dtype(at::kByte));
    }
    inputs.label_maps.copy_(batch.label_maps, true);
  }
  if (!batch.other_labels.defined()) return;
  if (!inputs.other_labels.defined()) {
    ABLATE_CHECK(eager_steps_ == 0, "mixing began after the first step");
    inputs.other_labels = at::empty_like(inputs.labels);
    inputs.mix = at::empty({parts_.batch}, inputs.images.options().dtype(at::kFloat));
  }
  inputs.other_labels.copy_(batch.other_labels, true);
  inputs.mix.copy_(batch.mix, true);
}

void DeviceStep::enqueue(const DeviceStepNumbers& numbers) {
  ABLATE_CHECK(outstanding() < kSlots, "results of ", kSlots, " steps wait to be taken");
  const c10::cuda::CUDAStreamGuard guard(stream_);
  if (parts_.communicator) parts_.communicator->step_begun(numbers.step);
  if (enqueued_ == 0) slot_of(-1).done->record(stream_);
  Slot& slot = slot_of(enqueued_);
  slot.begun->record(stream_);
  write_numbers(slot, numbers);
  if (!graph_.captured() && capturable_ && eager_steps_ == kEagerSteps) {
    const RunGate::Alone alone(RunGate::of_process());
    capturable_ = graph_.capture([this] { run(); }, "the step");
  }
  if (graph_.captured()) {
    graph_.replay();
  } else {
    run_eagerly();
  }
  read_back(slot);
  slot.step = numbers.step;
  ++enqueued_;
}

/// The slot is free: its last step has been taken.
void DeviceStep::write_numbers(Slot& slot, const DeviceStepNumbers& numbers) {
  const kernels::UpdateScalars scalars{
      .lr = numbers.lr,
      .gradient_scale = reducer_ ? reducer_->remaining_factor() : 1.0,
      .max_norm = numbers.clip_norm,
      .ema_decay = numbers.ema_decay};
  const std::array<double, kAgreedNumbers - 1> wishes{numbers.wishes.stop ? 1.0 : 0.0,
                                                      numbers.wishes.checkpoint ? 1.0 : 0.0};
  std::int64_t offset = 0;
  const auto send = [&](const void* data, const at::Tensor& target) {
    const auto size = static_cast<std::int64_t>(target.nbytes());
    std::memcpy(bytes_of(slot.numbers) + offset, data, static_cast<std::size_t>(size));
    target.view(at::kByte).copy_(slot.numbers.narrow(0, offset, size), true);
    offset += size;
  };
  send(&scalars, update_.scalars());
  send(wishes.data(), wishes_);
  for (const MicroBatch& micro : micro_batches_) {
    send(micro.joins->host_block(numbers.step).data(), micro.joins->device_block());
  }
}

void DeviceStep::read_back(Slot& slot) {
  const auto first = static_cast<std::int64_t>(agreed_.nbytes());
  slot.report.narrow(0, 0, first).copy_(agreed_.view(at::kByte), true);
  slot.report.narrow(0, first, update_.status().numel()).copy_(update_.status(), true);
  slot.done->record(stream_);
}

DeviceStepResult DeviceStep::take() {
  ABLATE_CHECK(outstanding() > 0, "no step is under way");
  Slot& slot = slot_of(taken_);
  slot.done->synchronize();
  if (parts_.communicator) parts_.communicator->step_finished(slot.step);
  std::array<double, kAgreedNumbers> agreed{};
  kernels::UpdateStatus status{};
  std::memcpy(agreed.data(), bytes_of(slot.report), sizeof agreed);
  std::memcpy(&status, bytes_of(slot.report) + sizeof agreed, sizeof status);
  DeviceStepResult result;
  result.loss = agreed[0] / ranks();
  result.grad_norm = status.norm;
  result.finite = status.finite != 0;
  result.updates = status.updates;
  result.wishes = {.stop = agreed[1] > 0, .checkpoint = agreed[2] > 0};
  const at::cuda::CUDAEvent& before = *slot_of(taken_ - 1).done;
  result.seconds = 1e-3 * static_cast<double>(before.elapsed_time(*slot.done));
  result.idle = 1e-3 * static_cast<double>(before.elapsed_time(*slot.begun));
  ++taken_;
  return result;
}

DeviceStepResult DeviceStep::wait() {
  DeviceStepResult last;
  while (outstanding() > 0) last = take();
  return last;
}

void DeviceStep::run() {
  parts_.arena.zero_grad();
  agreed_.zero_();
  norms_.begin_step();
  const at::Tensor step_number =
      at::from_blob(const_cast<std::int64_t*>(device_step()), {},
                    at::TensorOptions().dtype(at::kLong).device(agreed_.device()));
  for (std::int64_t i = 0; i < parts_.micro_batches; ++i) {
    const MicroBatch& micro = micro_batches_[static_cast<std::size_t>(i)];
    micro.joins->enqueue();
    if (parts_.fill) parts_.fill(micro.inputs, i, device_step());
    ForwardState state;
    state.norm_shares = &norms_.parts();
    state.fused = context_ ? &*context_ : nullptr;
    state.device_step = step_number;
    state.join_numbers = micro.joins->numbers();
    // Equal micro-batches: the mean of their means is the mean over the rank's slice.
    at::Tensor loss = parts_.loss(micro.inputs, state);
    if (parts_.micro_batches > 1) loss = loss / static_cast<double>(parts_.micro_batches);
    if (reducer_ && i + 1 == parts_.micro_batches) reducer_->arm();
    loss.backward();
    const at::NoGradGuard no_grad;
    agreed_[0].add_(loss.detach());
  }
  if (reducer_) reducer_->finish();
  const at::NoGradGuard no_grad;
  agreed_.narrow(0, 1, kAgreedNumbers - 1).copy_(wishes_);
  if (reducer_) {
    parts_.communicator->all_reduce(agreed_);
    at::Tensor shares = norms_.shares();
    if (norms_.any()) parts_.communicator->all_reduce(shares);
  }
  parts_.optimizer.enqueue(parts_.arena, update_);
  norms_.commit(update_.finite().const_data_ptr<std::int32_t>());
  if (parts_.ema) parts_.ema->update_buffers(update_.finite());
}

void DeviceStep::run_eagerly() {
  if (!capturable_) return run();
  const RunGate::Alone alone(RunGate::of_process());
  c10::cuda::device_synchronize();
  // Before and after: other runs of the process may have chosen since this one was made, and shall
  // not choose again what this step has.
  if (eager_steps_ == 0) settle_choices();
  run();
  settle_choices();
  if (++eager_steps_ == kEagerSteps - 1 && context_) context_->gemm().set_timing(false);
  stream_.synchronize();
}

void DeviceStep::settle_choices() {
  if (!context_ || !parts_.settle) return;
  kernels::Gemm& gemm = context_->gemm();
  gemm.set_choices(parts_.settle(gemm.choices()));
}

}  // namespace ablate
