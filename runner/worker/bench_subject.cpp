#include "runner/worker/bench_subject.h"

#include <cmath>

#include "runner/core/error.h"
#include "runner/measure/memory.h"
#include "runner/worker/bench_noise.h"
#include "runner/worker/standalone_model.h"

namespace ablate {
namespace {

constexpr std::uint64_t kSeed = 0;

/// Statistics over the recorded groups where they divide the batch, over all of it elsewhere.
Structure with_batch(Structure structure, std::int64_t batch) {
  if (structure.bn_group > 0 && batch % structure.bn_group != 0) structure.bn_group = batch;
  return structure;
}

bool is_dense(const Structure& structure) {
  return Registry<ModelInfo>::get(structure.model.name).dense;
}

}  // namespace

Batch synthetic_batch(const Model& model, const Structure& structure, std::int64_t size,
                      at::ScalarType dtype) {
  const std::int64_t side = model.image_size();
  Batch batch;
  batch.images = bench_noise(size * 3 * side * side).to(dtype).view({size, 3, side, side});
  batch.labels = at::arange(size, at::kLong).remainder(structure.classes);
  if (!is_dense(structure)) return batch;
  const at::Tensor pixels = at::arange(size * side * side, at::kLong);
  batch.label_maps = pixels.remainder(structure.classes).to(at::kByte).view({size, side, side});
  return batch;
}

std::unique_ptr<Task> bench_task(const Structure& structure) {
  if (is_dense(structure)) {
    const Value defaults = Value::Table{};
    Params params(defaults, "bench");
    DatasetFacts facts{};
    facts.classes = structure.classes;
    facts.dense = true;
    return Registry<TaskInfo>::get("segmentation").make(params, facts);
  }
  const Value settings = Value::Table{{"label_smoothing", 0.1}};
  Params params(settings, "bench");
  return Registry<TaskInfo>::get("classification").make(params, {});
}

std::unique_ptr<Optimizer> bench_optimizer() {
  const Value defaults;
  Params params(defaults, "bench");
  return Registry<OptimizerInfo>::get("adamw").make(params);
}

struct BenchSubject::Training {
  Training(Model& model, const Structure& structure, Communicator* communicator)
      : arena(model),
        task(bench_task(structure)),
        optimizer(bench_optimizer()),
        alone(make_self_communicator()) {
    arena.rebuild(model, 0);
    optimizer->prepare(arena);
    reducer =
        std::make_unique<GradientReducer>(communicator ? *communicator : *alone, arena.gradients(),
                                          arena.gradient_segments(), arena.parameter_tensors());
  }

  ParameterArena arena;
  std::unique_ptr<Task> task;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Communicator> alone;
  std::unique_ptr<GradientReducer> reducer;
};

BenchSubject::BenchSubject(const Structure& structure, const Protocol& protocol,
                           Communicator* communicator) {
  const at::ScalarType dtype = protocol.dtype == "fp64" ? at::kDouble : at::kFloat;
  model_ = build_model(with_batch(structure, protocol.batch), dtype, kSeed);
  batch_ = synthetic_batch(*model_, structure, protocol.batch, dtype);
  const bool trains = protocol.kind == BenchKind::Train;
  model_->train(trains);
  if (trains) training_ = std::make_unique<Training>(*model_, structure, communicator);
}

BenchSubject::~BenchSubject() = default;

void BenchSubject::repeat() {
  if (training_) return train_step();
  const at::NoGradGuard no_grad;
  ForwardState state;
  model_->forward(batch_.images, state);
}

void BenchSubject::train_step() {
  Training& training = *training_;
  training.arena.zero_grad();
  ForwardState state;
  state.seed = kSeed;
  state.step = step_++;
  const at::Tensor loss =
      pass_loss(*training.task, model_->forward(batch_.images, state), batch_, state);
  const auto value = loss.item<double>();
  training.reducer->arm();
  loss.backward();
  training.reducer->finish();
  const double norm = gradient_norm(training.arena);
  ABLATE_CHECK(std::isfinite(norm), "loss ", value, ", gradient norm ", norm, " on synthetic data");
  training.optimizer->step(training.arena, {.lr = kBenchLr});
}

std::int64_t peak_bytes(const Structure& structure, const Protocol& protocol) {
  MemoryMeter meter;
  BenchSubject subject(structure, protocol);
  subject.repeat();
  meter.reset_peak();
  subject.repeat();
  return meter.peak();
}

std::int64_t max_batch(const Structure& structure, Protocol protocol, std::int64_t budget) {
  constexpr std::int64_t kLimit = 65'536;
  return find_max_batch(
      [&](std::int64_t batch) {
        protocol.batch = batch;
        return peak_bytes(structure, protocol);
      },
      budget, kLimit);
}

}  // namespace ablate
