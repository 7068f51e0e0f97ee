#include "datasets/device/crop_loader.h"

#include <algorithm>
#include <limits>

#include "datasets/ordered_pool.h"

namespace ablate {
namespace {

augment::TrainBatch common_part(const AugmentRecipe& recipe, const Normalization& statistics,
                                const LoaderOptions& options, const BatchPlan& plan) {
  return {.set = {},
          .recipe = augment::pixel_recipe(recipe, statistics),
          .order = {},
          .augment = augment::stream_key(options.seed, Purpose::Augment),
          .mix = augment::stream_key(options.seed, Purpose::Mix),
          .global_batch = options.global_batch,
          .steps_per_epoch = plan.steps,
          .rows = plan.rows,
          .mix_group = recipe.mixing.enabled() ? static_cast<int>(options.mix_group) : 0};
}

/// Nothing is drawn for evaluation.
augment::TrainBatch eval_part(const AugmentRecipe& recipe, const Normalization& statistics,
                              std::int64_t rows) {
  augment::TrainBatch common;
  common.recipe.side = recipe.image_size;
  std::ranges::copy(statistics.mean, common.recipe.mean);
  std::ranges::copy(statistics.std, common.recipe.std);
  common.rows = rows;
  return common;
}

}  // namespace

std::string CropLoader::why_not(const AugmentRecipe& recipe) {
  if (recipe.crop == CropMode::Pad) return "crop = \"pad\" is made on the host";
  return "";
}

struct CropLoader::State {
  std::shared_ptr<const Dataset> dataset;
  TrainTransform transform;
  LoaderOptions options;
  BatchPlan plan;
  augment::TrainBatch common;
  CropPacker packer;
  OrderedPool<CroppedBatch> pool;

  State(std::shared_ptr<const Dataset> data, const AugmentRecipe& recipe,
        const LoaderOptions& loader, bool pinned)
      : dataset(std::move(data)),
        transform(recipe, dataset->facts().normalization),
        options(loader),
        plan(dataset->size(), recipe, loader),
        common(common_part(recipe, dataset->facts().normalization, loader, plan)),
        packer(dataset, plan.rows, pinned),
        pool([this](std::int64_t number) { return make(number); }, loader.threads,
             loader.prefetch) {}

  CroppedBatch make(std::int64_t number) {
    return packer.pack(
        draw_batch(dataset->size(), transform.recipe(), options, plan, number),
        [this](Size image, const AugmentKey& key) { return transform.plan(image, key); });
  }
};

CropLoader::CropLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
                       const LoaderOptions& options, bool pinned)
    : state_(std::make_unique<State>(std::move(dataset), recipe, options, pinned)) {}

CropLoader::~CropLoader() = default;

const BatchPlan& CropLoader::plan() const { return state_->plan; }

const augment::TrainBatch& CropLoader::common() const { return state_->common; }

void CropLoader::seek(std::int64_t epoch, std::int64_t step_in_epoch) {
  const std::int64_t step = epoch * state_->plan.steps + step_in_epoch;
  state_->pool.seek(step * state_->plan.per_step, std::numeric_limits<std::int64_t>::max());
}

CroppedBatch CropLoader::next() { return state_->pool.next(); }

double CropLoader::take_wait_seconds() { return state_->pool.take_wait_seconds(); }

StageSeconds CropLoader::take_stage_seconds() { return state_->packer.take_stage_seconds(); }

struct CropEvalLoader::State {
  std::int64_t size;
  EvalTransform transform;
  LoaderOptions options;
  augment::TrainBatch common;
  std::int64_t samples = 0, batches = 0;  // of the pass
  CropPacker packer;
  OrderedPool<CroppedBatch> pool;

  State(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
        const LoaderOptions& loader, bool pinned)
      : size(dataset->size()),
        transform(recipe, dataset->facts().normalization),
        options(loader),
        common(eval_part(recipe, dataset->facts().normalization, eval_rows(loader))),
        packer(dataset, common.rows, pinned),
        pool([this](std::int64_t number) { return make(number); }, loader.threads,
             loader.prefetch) {}

  CroppedBatch make(std::int64_t number) {
    DrawnBatch drawn;
    drawn.first_position = number * options.global_batch + options.shard.rank * common.rows;
    const std::int64_t end = std::min(samples, drawn.first_position + common.rows);
    for (std::int64_t index = drawn.first_position; index < end; ++index) {
      drawn.rows.push_back({.index = index, .key = {}});
    }
    return packer.pack(drawn,
                       [this](Size image, const AugmentKey&) { return transform.plan(image); });
  }
};

CropEvalLoader::CropEvalLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
                               const LoaderOptions& options, bool pinned)
    : state_(std::make_unique<State>(std::move(dataset), recipe, options, pinned)) {}

CropEvalLoader::~CropEvalLoader() = default;

const augment::TrainBatch& CropEvalLoader::common() const { return state_->common; }

void CropEvalLoader::start(std::int64_t limit) {
  State& state = *state_;
  // Nothing is made between the two seeks, so what make() reads may change.
  state.pool.seek(0, 0);
  state.samples = limit == 0 ? state.size : std::min(limit, state.size);
  state.batches = (state.samples + state.options.global_batch - 1) / state.options.global_batch;
  state.pool.seek(0, state.batches);
}

std::int64_t CropEvalLoader::batches() const { return state_->batches; }

CroppedBatch CropEvalLoader::next() { return state_->pool.next(); }

}  // namespace ablate
