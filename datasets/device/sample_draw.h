#pragma once

#include "datasets/device/batches.h"
#include "datasets/device/canvas.h"
#include "datasets/repeated_draw.h"
#include "datasets/transforms.h"

namespace ablate::augment {

/// All that is drawn for one sample of a training batch; shared by its team.
struct SampleDraw {
  std::int64_t index;  ///< in the set
  std::uint64_t key;   ///< of its streams, see sample_key()
  int top, left;       ///< of the window, in pixels of the unpadded image
  bool flipped;
  int ops;  ///< RandAugment operations that are applied
  AugmentOp op[kAugmentOps];
  double argument[kAugmentOps];
  Box erased;                ///< empty: nothing
  std::uint32_t fill_begin;  ///< position of the fill in the stream of erasing
};

ABLATE_HOST_DEVICE CounterStream stage_stream(const TrainBatch& batch, const SampleDraw& draw,
                                              AugmentStage stage) {
  return {batch.augment, draw.key, static_cast<std::uint32_t>(stage)};
}

/// Which image row `row` of the batch shows, as TrainLoader has it.
ABLATE_HOST_DEVICE void draw_image(const TrainBatch& batch, std::int64_t row, SampleDraw& draw) {
  const std::int64_t epoch = *batch.step / batch.steps_per_epoch;
  const std::int64_t step = *batch.step % batch.steps_per_epoch;
  const std::int64_t place =
      step * batch.global_batch + dealt_draw(batch.first_position + row, batch.global_batch,
                                             batch.mix_group, batch.recipe.repeated);
  const auto repetition = static_cast<std::uint64_t>(place % batch.recipe.repeated);
  const std::uint64_t index = batch.order.at(
      static_cast<std::uint64_t>(place / batch.recipe.repeated), static_cast<std::uint64_t>(epoch));
  draw.index = static_cast<std::int64_t>(index);
  draw.key = repetition << 60 | static_cast<std::uint64_t>(epoch) << 40 | index;
}

/// The central window, as center_crop_box().
ABLATE_HOST_DEVICE int central_offset(int whole, int part) {
  return static_cast<int>(::rint((whole - part) / 2.0));
}

ABLATE_HOST_DEVICE void draw_window(const TrainBatch& batch, SampleDraw& draw) {
  const PixelRecipe& recipe = batch.recipe;
  if (recipe.random_crop) {
    CounterStream random = stage_stream(batch, draw, AugmentStage::Crop);
    const int free = batch.set.side + 2 * recipe.pad - recipe.side;
    draw.top = static_cast<int>(random.below(static_cast<std::uint32_t>(free) + 1)) - recipe.pad;
    draw.left = static_cast<int>(random.below(static_cast<std::uint32_t>(free) + 1)) - recipe.pad;
  } else {
    draw.top = draw.left = central_offset(batch.set.side, recipe.side);
  }
  draw.flipped = stage_stream(batch, draw, AugmentStage::Flip).chance(recipe.flip);
}

/// augment_argument() of randaugment.h.
ABLATE_HOST_DEVICE double op_argument(AugmentOp op, double level, bool negative, bool increasing) {
  const double share = level / 10.0;
  const double sign = negative ? -1.0 : 1.0;
  switch (op) {
    case AugmentOp::AutoContrast:
    case AugmentOp::Equalize:
    case AugmentOp::Invert:
      return 0;
    case AugmentOp::Rotate:
      return sign * (share * 30.0);
    case AugmentOp::Posterize: {
      const int bits = static_cast<int>(share * 4);
      return increasing ? 4 - bits : bits;
    }
    case AugmentOp::Solarize: {
      const int raw = static_cast<int>(share * 256);
      const int threshold = raw < 256 ? raw : 256;
      return increasing ? 256 - threshold : threshold;
    }
    case AugmentOp::SolarizeAdd: {
      const int add = static_cast<int>(share * 110);
      return add < 128 ? add : 128;
    }
    case AugmentOp::Color:
    case AugmentOp::Contrast:
    case AugmentOp::Brightness:
    case AugmentOp::Sharpness: {
      if (!increasing) return share * 1.8 + 0.1;
      const double factor = 1.0 + sign * (share * 0.9);
      return factor > 0.1 ? factor : 0.1;
    }
    case AugmentOp::ShearX:
    case AugmentOp::ShearY:
      return sign * (share * 0.3);
    case AugmentOp::TranslateX:
    case AugmentOp::TranslateY:
      return sign * (share * 0.45);
  }
  return 0;
}

/// draw_randaugment() of randaugment.h, the applied ones only.
ABLATE_HOST_DEVICE void draw_ops(const TrainBatch& batch, SampleDraw& draw) {
  draw.ops = 0;
  if (!batch.recipe.randomly_augmented) return;
  const RandAugment& settings = batch.recipe.randaugment;
  CounterStream random = stage_stream(batch, draw, AugmentStage::RandAugment);
  for (int layer = 0; layer < settings.layers; ++layer) {
    const auto op = static_cast<AugmentOp>(random.below(kAugmentOps));
    const bool applied = random.chance(settings.probability);
    double level = settings.magnitude + settings.magnitude_std * random.normal();
    level = level < 0 ? 0 : level;
    level = level > settings.magnitude_max ? settings.magnitude_max : level;
    const bool negative = random.chance(0.5);
    if (!applied) continue;
    draw.op[draw.ops] = op;
    draw.argument[draw.ops] = op_argument(op, level, negative, settings.increasing);
    ++draw.ops;
  }
}

/// The box of random_erase() of erasing.h.
ABLATE_HOST_DEVICE void draw_erasing(const TrainBatch& batch, SampleDraw& draw) {
  constexpr int kTries = 10;
  constexpr double kLogRatio = -1.2039728043259361;  // log(0.3)
  const Erasing& settings = batch.recipe.erasing;
  draw.erased = Box{0, 0, 0, 0};
  if (settings.probability <= 0) return;
  const int side = batch.recipe.side;
  CounterStream random = stage_stream(batch, draw, AugmentStage::Erasing);
  if (!random.chance(settings.probability)) return;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const double area = random.uniform(0.02, 1.0 / 3.0) * side * side;
    const double aspect = ::exp(random.uniform(kLogRatio, -kLogRatio));
    const int h = static_cast<int>(::rint(::sqrt(area * aspect)));
    const int w = static_cast<int>(::rint(::sqrt(area / aspect)));
    if (w >= side || h >= side) continue;
    const int top = static_cast<int>(random.below(static_cast<std::uint32_t>(side - h) + 1));
    const int left = static_cast<int>(random.below(static_cast<std::uint32_t>(side - w) + 1));
    draw.erased = Box{left, top, w, h};
    draw.fill_begin = random.position();
    return;
  }
}

/// Fills `draw`, which the whole team can see; leaves the team in step.
template <typename Team>
ABLATE_HOST_DEVICE void draw_sample(const Team& team, const TrainBatch& batch, std::int64_t row,
                                    SampleDraw& draw) {
  if (team.leads(0)) draw_image(batch, row, draw);
  team.sync();
  // Every stage has a stream of its own: three threads draw at once.
  if (team.leads(0)) draw_window(batch, draw);
  if (team.leads(1)) draw_ops(batch, draw);
  if (team.leads(2)) draw_erasing(batch, draw);
  team.sync();
}

/// The plan of draw_mix() of mixing.h.
ABLATE_HOST_DEVICE MixPlan draw_plan(const TrainBatch& batch, std::int64_t group) {
  const Mixing& settings = batch.recipe.mixing;
  const int side = batch.recipe.side;
  MixPlan plan;
  CounterStream random(batch.mix, static_cast<std::uint64_t>(group),
                       static_cast<std::uint32_t>(*batch.step));
  const bool mixed = random.chance(settings.probability);
  const bool switched = random.chance(settings.switch_probability);
  if (!mixed) return plan;
  plan.cutmix = settings.cutmix > 0 && (settings.mixup <= 0 || switched);
  const double alpha = plan.cutmix ? settings.cutmix : settings.mixup;
  plan.lambda = random.beta(alpha, alpha);
  if (!plan.cutmix) return plan;
  const int center_y = static_cast<int>(random.below(static_cast<std::uint32_t>(side)));
  const int center_x = static_cast<int>(random.below(static_cast<std::uint32_t>(side)));
  const int half = static_cast<int>(side * ::sqrt(1.0 - plan.lambda)) / 2;
  const int top = center_y - half < 0 ? 0 : center_y - half;
  const int left = center_x - half < 0 ? 0 : center_x - half;
  const int bottom = center_y + half > side ? side : center_y + half;
  const int right = center_x + half > side ? side : center_x + half;
  plan.box = Box{left, top, right - left, bottom - top};
  const double replaced = static_cast<double>(plan.box.width) * plan.box.height;
  plan.lambda = 1.0 - replaced / (static_cast<double>(side) * side);
  return plan;
}

}  // namespace ablate::augment
