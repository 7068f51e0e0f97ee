#include "runner/worker/bench_device.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "datasets/device/batch_feeder.h"
#include "methods/models/half_images.h"
#include "runner/core/error.h"
#include "runner/train/device_forward.h"
#include "runner/train/device_step.h"
#include "runner/worker/bench_subject.h"
#include "runner/worker/standalone_model.h"

namespace ablate {
namespace {

constexpr double kWindowSeconds = 0.25;
constexpr std::int64_t kWarmUp = 6;  // eager steps, capture, first replays

void check_finite(const DeviceStepResult& result) {
  ABLATE_CHECK(result.finite, "loss ", result.loss, " in a benchmark");
}

}  // namespace

struct DeviceBenchSubject::State {
  State(const Structure& structure, const Protocol& protocol, Communicator* communicator,
        const Batch* first);

  double enqueue_step();

  std::shared_ptr<Model> model;
  std::unique_ptr<Task> task;
  std::unique_ptr<Optimizer> optimizer;
  std::optional<ParameterArena> arena;
  std::unique_ptr<DeviceStep> step;
  std::unique_ptr<DeviceForward> forward;
  bool half_images = false;
  std::int64_t steps = 0;
};

DeviceBenchSubject::State::State(const Structure& structure, const Protocol& protocol,
                                 Communicator* communicator, const Batch* first)
    : model(build_model(structure, at::kFloat, 0)) {
  const at::Device device(at::kCUDA, c10::cuda::current_device());
  move_model(*model, device, at::kFloat);
  const bool trains = protocol.kind == BenchKind::Train;
  model->train(trains);
  const Batch batch =
      first ? *first : synthetic_batch(*model, structure, protocol.batch, at::kFloat);
  if (!trains) {
    forward = std::make_unique<DeviceForward>(DeviceForward::Parts{
        .model = *model, .batch = protocol.batch, .fused = protocol.dtype == "bf16"});
    forward->inputs().copy_(batch.images);
    return;
  }
  task = bench_task(structure);
  optimizer = bench_optimizer();
  half_images = first && protocol.dtype == "bf16" && takes_half_images(*model);
  arena.emplace(*model);
  optimizer->prepare(*arena);
  step = std::make_unique<DeviceStep>(
      DeviceStep::Parts{.model = *model,
                        .optimizer = *optimizer,
                        .arena = *arena,
                        .loss =
                            [this](const Batch& inputs, ForwardState& state) {
                              const at::Tensor output = model->forward(inputs.images, state);
                              return pass_loss(*task, output, inputs, state);
                            },
                        .batch = protocol.batch,
                        .first_position = communicator ? communicator->rank() * protocol.batch : 0,
                        .seed = 0,
                        .fused = protocol.dtype == "bf16",
                        .half_images = half_images,
                        .communicator = communicator,
                        .wire = protocol.wire == "bf16" ? Wire::Bfloat16 : Wire::Gradients});
  step->load(0, batch);
}

/// Enqueues a step, waiting for the oldest where too many are under way; its idle seconds.
double DeviceBenchSubject::State::enqueue_step() {
  const double idle = step->outstanding() == DeviceStep::kSlots ? step->take().idle : 0.0;
  step->enqueue({.step = steps++, .lr = kBenchLr});
  return idle;
}

DeviceBenchSubject::DeviceBenchSubject(const Structure& structure, const Protocol& protocol,
                                       Communicator* communicator, const Batch* first)
    : state_(std::make_unique<State>(structure, protocol, communicator, first)) {
  repeat(kWarmUp);
}

DeviceBenchSubject::DeviceBenchSubject(const Structure& structure, const Protocol& protocol,
                                       Communicator* communicator)
    : DeviceBenchSubject(structure, protocol, communicator, nullptr) {}

DeviceBenchSubject::DeviceBenchSubject(const Structure& structure, const Protocol& protocol,
                                       const Batch& first)
    : DeviceBenchSubject(structure, protocol, nullptr, &first) {}

DeviceBenchSubject::~DeviceBenchSubject() = default;

void DeviceBenchSubject::repeat(std::int64_t times) {
  State& s = *state_;
  for (std::int64_t i = 0; i < times; ++i) {
    if (s.forward) {
      s.forward->enqueue(s.forward->inputs());
    } else {
      s.enqueue_step();
    }
  }
  if (s.forward) {
    s.forward->wait();
  } else {
    check_finite(s.step->wait());
  }
}

bool DeviceBenchSubject::half_images() const { return state_->half_images; }

double DeviceBenchSubject::repeat_fed(std::int64_t times, BatchFeeder& feeder) {
  State& s = *state_;
  double idle = 0;
  for (std::int64_t i = 0; i < times; ++i) {
    s.step->load(0, feeder.next(s.step->stream()));
    idle += s.enqueue_step();
    feeder.prefetch();
  }
  while (s.step->outstanding() > 0) {
    const DeviceStepResult result = s.step->take();
    check_finite(result);
    idle += result.idle;
  }
  return idle;
}

std::int64_t DeviceBenchSubject::window() {
  if (window_ == 0) {
    constexpr std::int64_t kTrial = 5;
    const auto start = std::chrono::steady_clock::now();
    repeat(kTrial);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    window_ = std::max<std::int64_t>(
        1, static_cast<std::int64_t>(kWindowSeconds * kTrial / took.count()));
  }
  return window_;
}

void DeviceBenchSubject::run_window() { repeat(window()); }

void choose_device(int index) {
  if (index >= c10::cuda::device_count()) {
    throw SpecError(cat("rank ", index, " of this machine has no device: there are ",
                        int{c10::cuda::device_count()}));
  }
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
}

void wait_for_device() { c10::cuda::device_synchronize(); }

std::int64_t device_peak_bytes() {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  return stats.reserved_bytes[0].peak;
}

std::int64_t device_held_bytes() {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  return stats.reserved_bytes[0].current;
}

void reset_device_peak() {
  c10::cuda::CUDACachingAllocator::emptyCache();
  c10::cuda::CUDACachingAllocator::resetPeakStats(c10::cuda::current_device());
}

}  // namespace ablate
