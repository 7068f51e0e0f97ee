#include "datasets/device/crop_loader.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <type_traits>

#include "datasets/drawn_batch.h"
#include "datasets/ordered_pool.h"
#include "datasets/sample_reader.h"
#include "datasets/tensor_pool.h"

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
  SampleReaders readers;
  StageClock clock;
  TensorPool memory;
  std::atomic<std::int64_t> most_bytes{0};  // that a batch has taken so far
  OrderedPool<CroppedBatch> pool;

  State(std::shared_ptr<const Dataset> data, const AugmentRecipe& recipe,
        const LoaderOptions& loader, bool pinned)
      : dataset(std::move(data)),
        transform(recipe, dataset->facts().normalization),
        options(loader),
        plan(dataset->size(), recipe, loader),
        common(common_part(recipe, dataset->facts().normalization, loader, plan)),
        memory(pinned),
        pool([this](std::int64_t number) { return make(number); }, loader.threads,
             loader.prefetch) {}

  CroppedBatch make(std::int64_t number) {
    const DrawnBatch drawn = draw_batch(dataset->size(), transform.recipe(), options, plan, number);
    CroppedBatch batch;
    batch.first_position = drawn.first_position;
    batch.crops = memory.take({1, CroppedBatch::crop_bytes(plan.rows)}, at::kByte);
    batch.pixels = memory.take_bytes(std::max<std::int64_t>(most_bytes, 1));
    auto* crops = reinterpret_cast<augment::CropRow*>(batch.crops.data_ptr());
    const SampleReaders::Lease reader(readers);
    StageTimer timer(clock);
    for (const DrawnBatch::Row& row : drawn.rows) {
      const CropPlan taken = transform.plan(reader->open(*dataset, row.index, timer), row.key);
      *crops = augment::crop_row(taken, row.key.sample, dataset->label(row.index));
      batch.room.place(*crops);
      make_room(batch, crops->pixels);
      timer.was(LoadStage::Copy);
      reader->read(taken.source, batch.pixels.data_ptr<std::uint8_t>() + crops->pixels, timer);
      batch.indices.push_back(row.index);
      ++crops;
    }
    std::memcpy(static_cast<void*>(crops), &drawn.step, sizeof drawn.step);
    return batch;
  }

  /// Has room for all rows that are placed, of which `filled` bytes are there.
  void make_room(CroppedBatch& batch, std::int64_t filled) {
    if (batch.room.pixels <= batch.pixels.numel()) return;
    const at::Tensor larger = memory.take_bytes(batch.room.pixels * 3 / 2);
    std::memcpy(larger.data_ptr(), batch.pixels.data_ptr(), static_cast<std::size_t>(filled));
    batch.pixels = larger;
    most_bytes = std::max<std::int64_t>(most_bytes, larger.numel());
  }
};

static_assert(std::is_trivially_copyable_v<augment::CropRow>);

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

StageSeconds CropLoader::take_stage_seconds() { return state_->clock.take(); }

}  // namespace ablate
