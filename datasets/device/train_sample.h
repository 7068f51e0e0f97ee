#pragma once

#include <bit>
#include <type_traits>

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
  share_pixels(team, canvas, [&](std::uint8_t* rgb, int y, int x) {
    const int from_y = draw.top + y;
    const int from_x = draw.left + (draw.flipped ? side - 1 - x : x);
    const bool inside = from_y >= 0 && from_y < set.side && from_x >= 0 && from_x < set.side;
    const std::uint8_t* from = image + (from_y * set.side + from_x) * kChannels;
    for (int c = 0; c < kChannels; ++c) rgb[c] = inside ? from[c] : std::uint8_t{0};
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

/// Fills the table of what each level becomes.
template <typename Team>
ABLATE_HOST_DEVICE void tabulate_normalized(const Team& team, const PixelRecipe& recipe,
                                            const Canvas& canvas) {
  share_out(team, kChannels * kLevels, [&](int i) {
    canvas.normalized[i] = normalized(recipe, i / kLevels, static_cast<std::uint8_t>(i % kLevels));
  });
}

struct NormalPair {
  float first, second;
};

/// The Box-Muller pair whose two words begin at `position`. Logarithm, cosine and sine in double
/// precision round to the host's single-precision ones nearly always.
ABLATE_HOST_DEVICE NormalPair normal_pair(CounterStream random, std::uint32_t position) {
  constexpr float kTurn = 2 * 3.14159265F;
  random.seek(position);
  const double radius_draw = 1.0F - random.uniform();
  const float radius = ::sqrtf(-2.0F * static_cast<float>(::log(radius_draw)));
  const double angle = kTurn * random.uniform();
  return {radius * static_cast<float>(::cos(angle)), radius * static_cast<float>(::sin(angle))};
}

/// Fills the erased box of `chw` as random_erase() does.
template <typename Team>
ABLATE_HOST_DEVICE void fill_erased(const Team& team, const TrainBatch& batch,
                                    const SampleDraw& draw, float* chw) {
  const ErasingMode mode = batch.recipe.erasing.mode;
  const Box& box = draw.erased;
  const int side = batch.recipe.side;
  const CounterStream random = stage_stream(batch, draw, AugmentStage::Erasing);
  // Rows are drawn in pairs of values; a pair is a team member's work.
  const int pairs = (box.width + 1) / 2;
  share_out(team, kChannels * box.height * pairs, [&](int i) {
    const int line = i / pairs, x = 2 * (i - line * pairs);
    const int channel = line / box.height, y = line - channel * box.height;
    NormalPair value{0.0F, 0.0F};
    if (mode != ErasingMode::Const) {
      const int drawn = mode == ErasingMode::Pixel ? i : channel;
      value = normal_pair(random, draw.fill_begin + 2 * static_cast<std::uint32_t>(drawn));
    }
    float* out = chw + (channel * side + box.top + y) * side + box.left + x;
    out[0] = value.first;
    if (x + 1 < box.width) out[1] = mode == ErasingMode::Pixel ? value.second : value.first;
  });
}

/// Normalises and erases into `chw`.
template <typename Team>
ABLATE_HOST_DEVICE void store_normalized(const Team& team, const TrainBatch& batch,
                                         const SampleDraw& draw, const Canvas& canvas, float* chw) {
  const Box& box = draw.erased;
  const int plane = canvas.plane();
  share_pixels(team, canvas, [&](const std::uint8_t* rgb, int y, int x) {
    const int row = y - box.top, column = x - box.left;
    const bool erased = row >= 0 && row < box.height && column >= 0 && column < box.width;
    if (erased) return;
    float* out = chw + y * canvas.side + x;
    for (int c = 0; c < kChannels; ++c) out[c * plane] = canvas.normalized[c * kLevels + rgb[c]];
  });
  if (box.width > 0) fill_erased(team, batch, draw, chw);
}

/// Makes row `row` of the batch but for mixing: what TrainTransform gives. `draw` and the canvas's
/// memory are the team's.
template <typename Team>
ABLATE_HOST_DEVICE void make_train_sample(const Team& team, const TrainBatch& batch,
                                          std::int64_t row, SampleDraw& draw, Canvas canvas) {
  tabulate_normalized(team, batch.recipe, canvas);
  draw_sample(team, batch, row, draw);
  load_window(team, batch.set, draw, canvas);
  for (int i = 0; i < draw.ops; ++i) {
    apply_op(team, canvas, draw.op[i], draw.argument[i], batch.recipe.fill);
  }
  store_normalized(team, batch, draw, canvas, batch.images + row * (kChannels * canvas.plane()));
  if (team.rank() == 0) batch.labels[row] = batch.set.labels[draw.index];
}

/// A value of a finished image as T: itself, or the nearest bfloat16, ties to even.
template <typename T>
ABLATE_HOST_DEVICE T finished(float value);
template <>
ABLATE_HOST_DEVICE float finished<float>(float value) {
  return value;
}
template <>
ABLATE_HOST_DEVICE kernels::bfloat16 finished<kernels::bfloat16>(float value) {
#ifdef __CUDA_ARCH__
  const std::uint32_t bits = __float_as_uint(value);
#else
  const auto bits = std::bit_cast<std::uint32_t>(value);
#endif
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

/// Where two partners come from and go to, (3, side, side) each; `to` may be `from`.
template <typename T>
struct MixPair {
  const float* from[2];
  T* to[2];
  int side;

  ABLATE_HOST_DEVICE int plane() const { return side * side; }
  /// Pixel i of the first becomes own of itself and other of the second, and vice versa.
  ABLATE_HOST_DEVICE void blend(int i, float own, float other) const {
    float a[kChannels], b[kChannels];  // all loads before the first store
    load(i, a, b);
    for (int c = 0; c < kChannels; ++c) {
      to[0][c * plane() + i] = finished<T>(own * a[c] + other * b[c]);
      to[1][c * plane() + i] = finished<T>(own * b[c] + other * a[c]);
    }
  }
  ABLATE_HOST_DEVICE void exchange(int i, bool exchanged) const {
    float a[kChannels], b[kChannels];
    load(i, a, b);
    for (int c = 0; c < kChannels; ++c) {
      to[0][c * plane() + i] = finished<T>(exchanged ? b[c] : a[c]);
      to[1][c * plane() + i] = finished<T>(exchanged ? a[c] : b[c]);
    }
  }

 private:
  ABLATE_HOST_DEVICE void load(int i, float* a, float* b) const {
    for (int c = 0; c < kChannels; ++c) {
      a[c] = from[0][c * plane() + i];
      b[c] = from[1][c * plane() + i];
    }
  }
};

/// Rows of batch.images and where they go: `out`, which is batch.images or as large.
template <typename T>
ABLATE_HOST_DEVICE MixPair<T> mix_pair(const TrainBatch& batch, std::int64_t first,
                                       std::int64_t second, T* out) {
  const int side = batch.recipe.side;
  const std::int64_t values = std::int64_t{kChannels} * side * side;
  return {{batch.images + first * values, batch.images + second * values},
          {out + first * values, out + second * values},
          side};
}

/// Finishes rows `first` and `second` as they are; they may be the same.
template <typename Team, typename T>
ABLATE_HOST_DEVICE void finish_rows(const Team& team, const TrainBatch& batch, std::int64_t first,
                                    std::int64_t second, T* out) {
  if constexpr (!std::is_same_v<T, float>) {  // floats are finished
    const MixPair<T> pair = mix_pair(batch, first, second, out);
    share_out(team, pair.plane(), [&](int i) { pair.exchange(i, false); });
  }
}

/// Mixes rows `first` and `second`, partners in a group with this plan, into `out`: floats in place
/// (batch.images), or as many others.
template <typename Team, typename T>
ABLATE_HOST_DEVICE void mix_rows(const Team& team, const TrainBatch& batch, const MixPlan& plan,
                                 std::int64_t first, std::int64_t second, T* out) {
  if (team.rank() == 0) {
    batch.other_labels[first] = batch.labels[second];
    batch.other_labels[second] = batch.labels[first];
    batch.mixed[first] = batch.mixed[second] = static_cast<float>(plan.lambda);
  }
  if (plan.lambda == 1 || first == second) return finish_rows(team, batch, first, second, out);
  const MixPair<T> pair = mix_pair(batch, first, second, out);
  if (!plan.cutmix) {
    const auto own = static_cast<float>(plan.lambda), other = static_cast<float>(1.0 - plan.lambda);
    share_out(team, pair.plane(), [&](int i) { pair.blend(i, own, other); });
    return;
  }
  share_out(team, pair.plane(), [&](int i) {
    const int y = i / pair.side - plan.box.top, x = i % pair.side - plan.box.left;
    const bool inside = y >= 0 && y < plan.box.height && x >= 0 && x < plan.box.width;
    if (inside || !std::is_same_v<T, float>) pair.exchange(i, inside);
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
