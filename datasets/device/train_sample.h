#pragma once

#include "datasets/device/affine_sampling.h"
#include "datasets/device/photometric.h"
#include "datasets/device/sample_draw.h"

namespace ablate::augment {

/// The drawn window of the stored image, mirrored if drawn so; black where it is off the image.
template <typename Team>
ABLATE_HOST_DEVICE void load_window(const Team& team, const ImageSet& set, const SampleDraw& draw,
                                    const Canvas& canvas) {
  const int side = canvas.side;
  const std::uint8_t* image =
      set.pixels + draw.index * (std::int64_t{kChannels} * set.side * set.side);
  share_out(team, canvas.values(), [&](int i) {
    const int pixel = i / kChannels;
    const int x = pixel % side;
    const int from_y = draw.top + pixel / side;
    const int from_x = draw.left + (draw.flipped ? side - 1 - x : x);
    const bool inside = from_y >= 0 && from_y < set.side && from_x >= 0 && from_x < set.side;
    canvas.pixels[i] =
        inside ? image[(from_y * set.side + from_x) * kChannels + i % kChannels] : std::uint8_t{0};
  });
  team.sync();
}

/// apply_augment_op() of randaugment.h.
template <typename Team>
ABLATE_HOST_DEVICE void apply_op(const Team& team, Canvas& canvas, AugmentOp op, double argument,
                                 const std::uint8_t* fill) {
  const auto factor = static_cast<float>(argument);
  const auto whole = static_cast<int>(argument);
  switch (op) {
    case AugmentOp::AutoContrast:
      return autocontrast(team, canvas);
    case AugmentOp::Equalize:
      return equalize(team, canvas);
    case AugmentOp::Invert:
      return map_values(team, canvas, [](int v) { return clipped(255 - v); });
    case AugmentOp::Rotate:
      return transform(team, canvas, rotation(argument, canvas.side), fill);
    case AugmentOp::Posterize:
      return map_values(team, canvas, [=](int v) { return clipped(v & (0xFF00 >> whole) & 0xFF); });
    case AugmentOp::Solarize:
      return map_values(team, canvas, [=](int v) { return clipped(v < whole ? v : 255 - v); });
    case AugmentOp::SolarizeAdd:
      return map_values(team, canvas, [=](int v) { return clipped(v < 128 ? v + whole : v); });
    case AugmentOp::Color:
      return adjust_color(team, canvas, factor);
    case AugmentOp::Contrast:
      return adjust_contrast(team, canvas, factor);
    case AugmentOp::Brightness:
      return map_values(team, canvas, [=](int v) { return blended(0, v, factor); });
    case AugmentOp::Sharpness:
      return adjust_sharpness(team, canvas, factor);
    case AugmentOp::ShearX:
      return transform(team, canvas, {1, argument, 0, 0, 1, 0}, fill);
    case AugmentOp::ShearY:
      return transform(team, canvas, {1, 0, 0, argument, 1, 0}, fill);
    case AugmentOp::TranslateX:
      return transform(team, canvas, {1, 0, argument * canvas.side, 0, 1, 0}, fill);
    case AugmentOp::TranslateY:
      return transform(team, canvas, {1, 0, 0, 0, 1, argument * canvas.side}, fill);
  }
}

/// Normaliser: (v / 255 - mean) / std in single precision.
ABLATE_HOST_DEVICE float normalized(const PixelRecipe& recipe, int channel, std::uint8_t value) {
  return (static_cast<float>(value) / 255.0F - recipe.mean[channel]) / recipe.std[channel];
}

/// One value of a Box-Muller pair whose two words begin at `position`. Logarithm and cosine in
/// double precision round to the host's single-precision ones nearly always.
ABLATE_HOST_DEVICE float fill_normal(CounterStream random, std::uint32_t position, bool second) {
  constexpr float kTurn = 2 * 3.14159265F;
  random.seek(position);
  const double radius_draw = 1.0F - random.uniform();
  const float radius = ::sqrtf(-2.0F * static_cast<float>(::log(radius_draw)));
  const double angle = kTurn * random.uniform();
  return radius * static_cast<float>(second ? ::sin(angle) : ::cos(angle));
}

/// What stands at (channel, y, x) of the erased box, counted from its corner.
ABLATE_HOST_DEVICE float erased_value(const TrainBatch& batch, const SampleDraw& draw, int channel,
                                      int y, int x) {
  const ErasingMode mode = batch.recipe.erasing.mode;
  if (mode == ErasingMode::Const) return 0.0F;
  const CounterStream random = stage_stream(batch, draw, AugmentStage::Erasing);
  if (mode == ErasingMode::Rand) {
    return fill_normal(random, draw.fill_begin + 2 * static_cast<std::uint32_t>(channel), false);
  }
  const int pairs_of_row = (draw.erased.width + 1) / 2;
  const int pair = (channel * draw.erased.height + y) * pairs_of_row + x / 2;
  return fill_normal(random, draw.fill_begin + 2 * static_cast<std::uint32_t>(pair), x % 2 == 1);
}

/// Normalises and erases into `chw`.
template <typename Team>
ABLATE_HOST_DEVICE void store_normalized(const Team& team, const TrainBatch& batch,
                                         const SampleDraw& draw, const Canvas& canvas, float* chw) {
  const int plane = canvas.side * canvas.side;
  share_out(team, canvas.values(), [&](int i) {
    const int channel = i / plane, pixel = i % plane;
    const int y = pixel / canvas.side - draw.erased.top, x = pixel % canvas.side - draw.erased.left;
    const bool erased = y >= 0 && y < draw.erased.height && x >= 0 && x < draw.erased.width;
    chw[i] = erased ? erased_value(batch, draw, channel, y, x)
                    : normalized(batch.recipe, channel, canvas.pixels[kChannels * pixel + channel]);
  });
}

/// Makes row `row` of the batch but for mixing: what TrainTransform gives. `draw` and the canvas's
/// memory are the team's.
template <typename Team>
ABLATE_HOST_DEVICE void make_train_sample(const Team& team, const TrainBatch& batch,
                                          std::int64_t row, SampleDraw& draw, Canvas canvas) {
  draw_sample(team, batch, row, draw);
  load_window(team, batch.set, draw, canvas);
  for (int i = 0; i < draw.ops; ++i) {
    apply_op(team, canvas, draw.op[i], draw.argument[i], batch.recipe.fill);
  }
  store_normalized(team, batch, draw, canvas, batch.images + row * canvas.values());
  if (team.rank() == 0) batch.labels[row] = batch.set.labels[draw.index];
}

/// Mixes rows `first` and `second`, partners in a group with this plan.
template <typename Team>
ABLATE_HOST_DEVICE void mix_rows(const Team& team, const TrainBatch& batch, const MixPlan& plan,
                                 std::int64_t first, std::int64_t second) {
  if (team.rank() == 0) {
    batch.other_labels[first] = batch.labels[second];
    batch.other_labels[second] = batch.labels[first];
    batch.mixed[first] = batch.mixed[second] = static_cast<float>(plan.lambda);
  }
  if (plan.lambda == 1 || first == second) return;
  const int side = batch.recipe.side;
  const int values = kChannels * side * side;
  float* a = batch.images + first * values;
  float* b = batch.images + second * values;
  const auto own = static_cast<float>(plan.lambda), other = static_cast<float>(1.0 - plan.lambda);
  share_out(team, values, [&](int i) {
    const float from_a = a[i], from_b = b[i];
    if (!plan.cutmix) {
      a[i] = own * from_a + other * from_b;
      b[i] = own * from_b + other * from_a;
      return;
    }
    const int y = i / side % side - plan.box.top, x = i % side - plan.box.left;
    if (y < 0 || y >= plan.box.height || x < 0 || x >= plan.box.width) return;
    a[i] = from_b;
    b[i] = from_a;
  });
}

/// Row `row` of an evaluation batch: what EvalTransform gives without a resize, or padding.
template <typename Team>
ABLATE_HOST_DEVICE void make_eval_sample(const Team& team, const EvalBatch& batch,
                                         std::int64_t row) {
  const int side = batch.recipe.side, plane = side * side, stored = batch.set.side;
  const std::int64_t index = batch.first + row;
  const bool padding = index >= batch.end;
  const int offset = central_offset(stored, side);
  const std::uint8_t* image =
      batch.set.pixels + (padding ? 0 : index) * (std::int64_t{kChannels} * stored * stored);
  float* chw = batch.images + row * (kChannels * plane);
  share_out(team, kChannels * plane, [&](int i) {
    const int channel = i / plane, y = i % plane / side + offset, x = i % side + offset;
    chw[i] = padding
                 ? 0.0F
                 : normalized(batch.recipe, channel, image[(y * stored + x) * kChannels + channel]);
  });
  if (team.rank() != 0) return;
  batch.labels[row] = padding ? 0 : batch.set.labels[index];
  batch.weights[row] = padding ? 0.0F : 1.0F;
}

}  // namespace ablate::augment
