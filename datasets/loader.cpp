#include "datasets/loader.h"

#include <limits>
#include <optional>

#include "datasets/dense_rows.h"
#include "datasets/drawn_batch.h"
#include "datasets/ordered_pool.h"
#include "datasets/sample_reader.h"
#include "datasets/tensor_pool.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

std::int64_t values_of_image(int side) { return std::int64_t{Image::kChannels} * side * side; }

void check_ranks(const LoaderOptions& options) {
  if (options.global_batch % options.shard.size != 0) {
    throw SpecError(cat("global_batch = ", options.global_batch, " does not divide among ",
                        options.shard.size, " ranks; change one of them"));
  }
}

/// Rows of one micro-batch; the rank's whole slice when none is asked for.
std::int64_t micro_rows(const LoaderOptions& options, const AugmentRecipe& recipe) {
  check_ranks(options);
  const std::int64_t slice = options.global_batch / options.shard.size;
  const std::int64_t rows = options.micro_batch == 0 ? slice : options.micro_batch;
  if (rows > slice || slice % rows != 0) {
    throw SpecError(cat("micro-batch = ", rows, " does not divide the ", slice,
                        " images a rank sees in a step; use a divisor of ", slice));
  }
  if (recipe.mixing.enabled() && rows % options.mix_group != 0) {
    throw SpecError(cat("mix_group = ", options.mix_group, " does not divide the ", rows,
                        " images of a forward pass; lower mix_group, or change global_batch, ranks "
                        "or micro-batch"));
  }
  return rows;
}

}  // namespace

BatchPlan::BatchPlan(std::int64_t samples, const AugmentRecipe& recipe,
                     const LoaderOptions& options)
    : rows(micro_rows(options, recipe)),
      per_step(options.global_batch / options.shard.size / rows),
      steps(samples / options.global_batch) {
  if (steps == 0) {
    throw SpecError(cat("global_batch = ", options.global_batch,
                        " images are more than the training set (", samples, ")"));
  }
}

struct TrainLoader::State {
  std::shared_ptr<const Dataset> dataset;
  AugmentRecipe recipe;
  TrainTransform transform;
  std::optional<DenseTrainTransform> dense;
  LoaderOptions options;
  BatchPlan plan;
  SampleReaders readers;
  StageClock clock;
  TensorPool memory;
  OrderedPool<Batch> pool;

  State(std::shared_ptr<const Dataset> data, const AugmentRecipe& augment, LoaderOptions loader)
      : dataset(std::move(data)),
        recipe(augment),
        transform(augment, dataset->facts().normalization),
        options(loader),
        plan(dataset->size(), augment, loader),
        memory(loader.pinned),
        pool([this](std::int64_t number) { return make(number); }, loader.threads,
             loader.prefetch) {
    const DatasetFacts& facts = dataset->facts();
    if (facts.dense) dense.emplace(augment, facts.normalization);
  }

  /// Micro-batch `number` of this rank, counted over the whole run.
  Batch make(std::int64_t number) {
    const DrawnBatch drawn = draw_batch(dataset->size(), recipe, options, plan, number);
    const int side = transform.image_size();
    Batch batch;
    batch.first_position = drawn.first_position;
    batch.images = memory.take({plan.rows, Image::kChannels, side, side}, at::kFloat);
    batch.labels = at::empty({plan.rows}, at::kLong);
    batch.weights = at::ones({plan.rows}, at::kFloat);
    if (dense) batch.label_maps = memory.take({plan.rows, side, side}, at::kByte);
    const SampleReaders::Lease reader(readers);
    StageTimer timer(clock);
    for (std::int64_t row = 0; row < plan.rows; ++row) {
      const auto& [index, key] = drawn.rows[static_cast<std::size_t>(row)];
      if (dense) {
        make_dense_row(*dataset, *dense, index, key, batch, row);
      } else {
        make_row(*reader, index, key, timer,
                 batch.images.data_ptr<float>() + row * values_of_image(side));
      }
      timer.was(LoadStage::Augment);
      batch.labels.data_ptr<std::int64_t>()[row] = dataset->label(index);
      batch.indices.push_back(index);
    }
    if (recipe.mixing.enabled()) mix(batch, drawn.step);
    timer.was(LoadStage::Augment);
    return batch;
  }

  void make_row(SampleReader& reader, std::int64_t index, const AugmentKey& key, StageTimer& timer,
                float* chw) {
    const CropPlan taken = transform.plan(reader.open(*dataset, index, timer), key);
    reader.read(taken.source, timer);
    transform(reader.memory.part, taken, key, reader.memory, chw);
  }

  void mix(Batch& batch, std::int64_t step) const {
    const std::int64_t rows = plan.rows;
    const int side = transform.image_size();
    const auto group_rows = static_cast<int>(options.mix_group);
    batch.other_labels = at::empty({rows}, at::kLong);
    batch.mix = at::empty({rows}, at::kFloat);
    for (std::int64_t first = 0; first < rows; first += group_rows) {
      const auto group = static_cast<std::uint64_t>((batch.first_position + first) / group_rows);
      const MixPlan mixing = draw_mix(recipe.mixing, options.seed, group,
                                      static_cast<std::uint32_t>(step), side, side);
      apply_mix(batch.images.data_ptr<float>() + first * values_of_image(side), group_rows,
                Image::kChannels, side, side, mixing);
      const at::Tensor own = batch.labels.slice(0, first, first + group_rows);
      batch.other_labels.slice(0, first, first + group_rows).copy_(own.flip(0));
      batch.mix.slice(0, first, first + group_rows).fill_(mixing.lambda);
    }
  }
};

TrainLoader::TrainLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
                         LoaderOptions options)
    : state_(std::make_unique<State>(std::move(dataset), recipe, options)) {}

TrainLoader::~TrainLoader() = default;

std::int64_t TrainLoader::steps_per_epoch() const { return state_->plan.steps; }

std::int64_t TrainLoader::micro_batches_per_step() const { return state_->plan.per_step; }

void TrainLoader::seek(std::int64_t epoch, std::int64_t step_in_epoch) {
  const std::int64_t step = epoch * state_->plan.steps + step_in_epoch;
  state_->pool.seek(step * state_->plan.per_step, std::numeric_limits<std::int64_t>::max());
}

Batch TrainLoader::next() { return state_->pool.next(); }

double TrainLoader::take_wait_seconds() { return state_->pool.take_wait_seconds(); }

StageSeconds TrainLoader::take_stage_seconds() { return state_->clock.take(); }

std::int64_t eval_rows(const LoaderOptions& options) {
  check_ranks(options);
  return options.global_batch / options.shard.size;
}

struct EvalLoader::State {
  std::shared_ptr<const Dataset> dataset;
  EvalTransform transform;
  std::optional<DenseEvalTransform> dense;
  LoaderOptions options;
  std::int64_t rows = 0, samples = 0, batches = 0;
  SampleReaders readers;
  StageClock clock;
  TensorPool memory;
  OrderedPool<Batch> pool;

  State(std::shared_ptr<const Dataset> data, const AugmentRecipe& augment, LoaderOptions loader)
      : dataset(std::move(data)),
        transform(augment, dataset->facts().normalization),
        options(loader),
        pool([this](std::int64_t number) { return make(number); }, loader.threads,
             loader.prefetch) {
    rows = eval_rows(options);
    const DatasetFacts& facts = dataset->facts();
    if (!facts.dense) return;
    dense.emplace(augment, facts.normalization);
    rows = dense_eval_rows(*dataset, options);
  }

  /// Of all ranks.
  std::int64_t batch_samples() const { return rows * options.shard.size; }

  Batch make(std::int64_t number) {
    const std::int64_t first = number * batch_samples() + options.shard.rank * rows;
    if (dense) return make_dense_eval_batch(*dataset, *dense, first, rows, samples);
    const int side = transform.image_size();
    Batch batch;
    batch.first_position = first;
    batch.images = memory.take({rows, Image::kChannels, side, side}, at::kFloat);
    batch.labels = at::zeros({rows}, at::kLong);
    batch.weights = at::zeros({rows}, at::kFloat);
    const SampleReaders::Lease reader(readers);
    StageTimer timer(clock);
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t index = batch.first_position + row;
      float* pixels = batch.images.data_ptr<float>() + row * values_of_image(side);
      if (index >= samples) {
        std::fill_n(pixels, values_of_image(side), 0.0F);
        batch.indices.push_back(-1);
        continue;
      }
      const CropPlan taken = transform.plan(reader->open(*dataset, index, timer));
      reader->read(taken.source, timer);
      transform(reader->memory.part, taken, reader->memory, pixels);
      timer.was(LoadStage::Augment);
      batch.labels.data_ptr<std::int64_t>()[row] = dataset->label(index);
      batch.weights.data_ptr<float>()[row] = 1.0F;
      batch.indices.push_back(index);
    }
    return batch;
  }
};

EvalLoader::EvalLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
                       LoaderOptions options)
    : state_(std::make_unique<State>(std::move(dataset), recipe, options)) {}

EvalLoader::~EvalLoader() = default;

void EvalLoader::start(std::int64_t limit) {
  const std::int64_t size = state_->dataset->size();
  // Nothing is made between the two seeks, so what make() reads may change.
  state_->pool.seek(0, 0);
  state_->samples = limit == 0 ? size : std::min(limit, size);
  state_->batches = (state_->samples + state_->batch_samples() - 1) / state_->batch_samples();
  state_->pool.seek(0, state_->batches);
}

std::int64_t EvalLoader::batches() const { return state_->batches; }

Batch EvalLoader::next() { return state_->pool.next(); }

}  // namespace ablate
