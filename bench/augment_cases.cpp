#include "bench/kernels_bench.h"
#include "datasets/device/batches.h"
#include "datasets/device/crop_batch.h"
#include "runner/core/params.h"
#include "runner/core/random.h"
#include "runner/core/text.h"
#include "runner/core/value.h"

namespace ablate::kernels::bench {
namespace {

constexpr std::int64_t kImages = 50'000;  // of the set, as in CIFAR
constexpr std::int64_t kSteps = 64;       // that launches take in turns
constexpr std::int64_t kMixGroup = 32;

template <typename T>
std::shared_ptr<T> upload(const std::vector<T>& values) {
  auto memory = allocate<T>(static_cast<std::int64_t>(values.size()));
  check_cuda(
      cudaMemcpy(memory.get(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

/// A few thousand images of noise over and over.
std::vector<std::uint8_t> noise_pixels(int side) {
  constexpr std::size_t kDrawn = (1 << 20) + 7;
  RandomStream random(1, Purpose::Test);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(kImages * 3 * side * side));
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = i < kDrawn ? static_cast<std::uint8_t>(random.below(256)) : pixels[i - kDrawn];
  }
  return pixels;
}

std::vector<std::int64_t> counted(std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i);
  return numbers;
}

const Normalization kHalves{{0.5F, 0.5F, 0.5F}, {0.25F, 0.25F, 0.25F}};

AugmentRecipe named_recipe(const std::string& name, int side) {
  const Value defaults = parse_toml("", "bench");
  Params params(defaults, "augmentation");
  return read_augmentation(name, params, side);
}

/// A micro-batch of training from a set in memory, the whole of its augmentation.
Case augment_case(const std::string& name, int side, std::int64_t batch) {
  return {cat("\"op\": \"augment\", \"recipe\": \"", name, "\", \"side\": ", side,
              ", \"batch\": ", batch),
          [=] {
            const std::int64_t values = batch * 3 * side * side;
            const auto pixels = upload(noise_pixels(side));
            const auto set_labels = upload(counted(kImages)), steps = upload(counted(kSteps));
            const auto images = allocate<float>(values), mixed = allocate<float>(batch);
            const auto labels = allocate<std::int64_t>(batch),
                       others = allocate<std::int64_t>(batch);
            const auto plans = allocate<MixPlan>(batch / kMixGroup);
            const augment::PixelRecipe recipe =
                augment::pixel_recipe(named_recipe(name, side), kHalves);
            const augment::TrainBatch whole{
                .set = {pixels.get(), set_labels.get(), kImages, side},
                .recipe = recipe,
                .order = augment::keyed_order(kImages, 0, Purpose::DataOrder),
                .augment = augment::stream_key(0, Purpose::Augment),
                .mix = augment::stream_key(0, Purpose::Mix),
                .global_batch = batch,
                .steps_per_epoch = kImages / batch,
                .rows = batch,
                .mix_group = recipe.mixing.enabled() ? static_cast<int>(kMixGroup) : 0,
                .plans = plans.get(),
                .images = images.get(),
                .labels = labels.get(),
                .other_labels = others.get(),
                .mixed = mixed.get()};
            auto launches = std::make_shared<std::int64_t>(0);
            // The function keeps the memory.
            const auto run = [=, kept = std::tuple(pixels, set_labels, plans, images, mixed, labels,
                                                   others)](Stream stream) {
              augment::TrainBatch arguments = whole;
              arguments.step = steps.get() + (*launches)++ % kSteps;
              augment::make_batch(arguments, stream);
            };
            return Work{run, static_cast<double>(values) * (1 + sizeof(float)), 0.0};
          }};
}

/// The rows of a batch of photos of 500 x 375 pixels, cut as the recipe says.
std::vector<augment::CropRow> photo_crops(const AugmentRecipe& recipe, std::int64_t batch,
                                          augment::CropRoom& room) {
  const TrainTransform transform(recipe, kHalves);
  std::vector<augment::CropRow> rows;
  for (std::int64_t i = 0; i < batch; ++i) {
    const AugmentKey key{0, static_cast<std::uint64_t>(i)};
    rows.push_back(augment::crop_row(transform.plan({500, 375}, key), key.sample, i));
    room.place(rows.back());
  }
  return rows;
}

/// A micro-batch of training from crops, the whole of what the device does to them.
Case crops_case(int side, std::int64_t batch) {
  return {cat("\"op\": \"augment_crops\", \"side\": ", side, ", \"batch\": ", batch), [=] {
            const AugmentRecipe recipe = named_recipe("deit", side);
            const std::int64_t values = batch * 3 * side * side;
            augment::CropRoom room;
            const auto crops = upload(photo_crops(recipe, batch, room));
            const auto pixels = allocate<std::uint8_t>(room.pixels);
            const auto rows = allocate<std::uint8_t>(room.rows);
            const auto taps = allocate<std::int32_t>(room.taps);
            const auto canvases = allocate<std::uint8_t>(2 * values);
            const auto images = allocate<float>(values), mixed = allocate<float>(batch);
            const auto labels = allocate<std::int64_t>(2 * batch), step = upload(counted(1));
            const auto plans = allocate<MixPlan>(batch / kMixGroup);
            const augment::CropBatch whole{
                .train = {.set = {},
                          .recipe = augment::pixel_recipe(recipe, kHalves),
                          .order = {},
                          .augment = augment::stream_key(0, Purpose::Augment),
                          .mix = augment::stream_key(0, Purpose::Mix),
                          .global_batch = batch,
                          .steps_per_epoch = 1,
                          .rows = batch,
                          .mix_group = static_cast<int>(kMixGroup),
                          .plans = plans.get(),
                          .step = step.get(),
                          .images = images.get(),
                          .labels = labels.get(),
                          .other_labels = labels.get() + batch,
                          .mixed = mixed.get()},
                .crops = crops.get(),
                .pixels = pixels.get(),
                .rows = rows.get(),
                .taps = taps.get(),
                .canvases = canvases.get()};
            // The function keeps the memory.
            const auto run = [whole, kept = std::tuple(crops, pixels, rows, taps, canvases, images,
                                                       mixed, labels, step, plans)](Stream stream) {
              augment::make_batch(whole, stream);
            };
            return Work{
                run, static_cast<double>(room.pixels) + static_cast<double>(values) * sizeof(float),
                0.0};
          }};
}

}  // namespace

std::vector<Case> augment_cases() {
  std::vector<Case> cases;
  for (const std::int64_t batch : {128, 1024}) {
    for (const char* recipe : {"none", "cifar", "cifar_strong"}) {
      cases.push_back(augment_case(recipe, 32, batch));
    }
  }
  cases.push_back(augment_case("cifar_strong", 64, 256));
  cases.push_back(crops_case(224, 256));
  return cases;
}

}  // namespace ablate::kernels::bench
