#pragma once

#include "datasets/device/crop_batch.h"
#include "datasets/device/train_sample.h"
#include "datasets/filter_taps.h"

namespace ablate::augment {

// Resizer (datasets/resize.h) for teams: the same bits. The steps of a sample are separated by
// whoever runs them: a team need not be in step within one.

/// The filter of one axis in the team's memory: for every output pixel its first source pixel, how
/// many there are, and their weights.
struct TapTable {
  std::int32_t *first, *count, *weights;
  int room;  ///< for weights of one output pixel

  static ABLATE_HOST_DEVICE int room_for(const AxisFilter& axis) { return axis.most_taps(); }
  /// Words for `size` output pixels.
  static ABLATE_HOST_DEVICE std::int64_t words(int size, int room) {
    return std::int64_t{size} * (2 + room);
  }
  ABLATE_HOST_DEVICE TapTable(std::int32_t* memory, int size, int words_a_pixel)
      : first(memory), count(memory + size), weights(memory + 2 * size), room(words_a_pixel) {}
};

/// One axis of a row's resampling.
struct CropAxis {
  AxisFilter filter;
  int begin, size;  ///< of the window
  int origin;       ///< of the source
  bool kept;        ///< the pass that changes nothing

  ABLATE_HOST_DEVICE int room() const { return TapTable::room_for(filter); }
  ABLATE_HOST_DEVICE std::int64_t words() const { return TapTable::words(size, room()); }

  /// Fills in output pixel `i`.
  ABLATE_HOST_DEVICE void tabulate(const TapTable& table, int i) const {
    std::int32_t* weights = table.weights + std::int64_t{i} * table.room;
    if (kept) {
      table.first[i] = begin + i - origin;
      table.count[i] = 1;
      weights[0] = 1 << kTapBits;
      return;
    }
    const TapRange range = filter.range(begin + i);
    double sum = 0;
    for (int k = 0; k < range.count; ++k) sum += filter.raw_weight(begin + i, range.first + k);
    for (int k = 0; k < range.count; ++k) {
      weights[k] = fixed_weight(filter.raw_weight(begin + i, range.first + k) / sum);
    }
    table.first[i] = range.first - origin;
    table.count[i] = range.count;
  }
};

ABLATE_HOST_DEVICE CropAxis axis_across(const CropRow& row) {
  const ResizedWindow& to = row.resized;
  return {AxisFilter(to.whole.width, to.target.width, to.filter), to.window.left, to.window.width,
          row.source.left, to.whole.width == to.target.width};
}
ABLATE_HOST_DEVICE CropAxis axis_down(const CropRow& row) {
  const ResizedWindow& to = row.resized;
  return {AxisFilter(to.whole.height, to.target.height, to.filter), to.window.top, to.window.height,
          row.source.top, to.whole.height == to.target.height};
}

ABLATE_HOST_DEVICE TapTable table_across(const CropBatch& batch, const CropRow& row) {
  const CropAxis across = axis_across(row);
  return {batch.taps + row.taps, across.size, across.room()};
}
ABLATE_HOST_DEVICE TapTable table_down(const CropBatch& batch, const CropRow& row) {
  const CropAxis down = axis_down(row);
  return {batch.taps + row.taps + axis_across(row).words(), down.size, down.room()};
}

/// First step: the filters.
template <typename Team>
ABLATE_HOST_DEVICE void tabulate_filters(const Team& team, const CropBatch& batch,
                                         const CropRow& row) {
  const CropAxis across = axis_across(row), down = axis_down(row);
  const TapTable to_columns = table_across(batch, row), to_rows = table_down(batch, row);
  share_out(team, across.size, [&](int i) { across.tabulate(to_columns, i); });
  share_out(team, down.size, [&](int i) { down.tabulate(to_rows, i); });
}

/// The weighted sum of pixels `stride` bytes apart.
ABLATE_HOST_DEVICE void combine(const std::uint8_t* from, std::int64_t stride,
                                const TapTable& table, int output, std::uint8_t* out) {
  constexpr std::int32_t kHalf = 1 << (kTapBits - 1);
  const std::int32_t* weights = table.weights + std::int64_t{output} * table.room;
  const int count = table.count[output];
  std::int32_t sums[kChannels] = {kHalf, kHalf, kHalf};
  for (int k = 0; k < count; ++k, from += stride) {
    for (int c = 0; c < kChannels; ++c) sums[c] += weights[k] * from[c];
  }
  for (int c = 0; c < kChannels; ++c) out[c] = clipped(sums[c] >> kTapBits);
}

/// Second step: the pass along rows.
template <typename Team>
ABLATE_HOST_DEVICE void resample_rows(const Team& team, const CropBatch& batch,
                                      const CropRow& row) {
  const int width = row.resized.window.width;
  const TapTable table = table_across(batch, row);
  share_out(team, row.source.height * width, [&](int i) {
    const int y = i / width, x = i - y * width;
    const std::uint8_t* line =
        batch.pixels + row.pixels + std::int64_t{kChannels} * y * row.source.width;
    combine(line + std::int64_t{kChannels} * table.first[x], kChannels, table, x,
            batch.rows + row.rows + std::int64_t{kChannels} * i);
  });
}

/// The canvas images of row `number`: the first of two.
ABLATE_HOST_DEVICE std::uint8_t* canvas_image(const CropBatch& batch, std::int64_t number) {
  const int side = batch.train.recipe.side;
  return batch.canvases + number * 2 * (std::int64_t{kChannels} * side * side);
}

/// Third step: the pass along columns, mirrored if drawn so.
template <typename Team>
ABLATE_HOST_DEVICE void resample_columns(const Team& team, const CropBatch& batch,
                                         std::int64_t number) {
  const CropRow& row = batch.crops[number];
  const int side = batch.train.recipe.side, stride = kChannels * side;
  const TapTable table = table_down(batch, row);
  std::uint8_t* image = canvas_image(batch, number);
  SampleDraw draw;
  draw.key = row.key;
  const bool flipped =
      stage_stream(batch.train, draw, AugmentStage::Flip).chance(batch.train.recipe.flip);
  share_out(team, side * side, [&](int i) {
    const int y = i / side, x = i - y * side, to = flipped ? side - 1 - x : x;
    combine(batch.rows + row.rows + std::int64_t{stride} * table.first[y] + kChannels * x, stride,
            table, y, image + std::int64_t{stride} * y + kChannels * to);
  });
}

/// Fourth step: RandAugment, normalisation, erasing. `draw` and the canvas's tables are the
/// team's.
template <typename Team>
ABLATE_HOST_DEVICE void augment_sample(const Team& team, const CropBatch& batch,
                                       std::int64_t number, SampleDraw& draw,
                                       std::uint8_t* tables) {
  const TrainBatch& train = batch.train;
  const int side = train.recipe.side, bytes = kChannels * side * side;
  std::uint8_t* const image = canvas_image(batch, number);
  Canvas canvas = canvas_of(image, image + bytes, tables, side);
  tabulate_normalized(team, train.recipe, canvas);
  if (team.rank() == 0) draw.key = batch.crops[number].key;
  team.sync();
  if (team.leads(0)) draw_ops(train, draw);
  if (team.leads(1)) draw_erasing(train, draw);
  team.sync();
  for (int i = 0; i < draw.ops; ++i) {
    apply_op(team, canvas, draw.op[i], draw.argument[i], train.recipe.fill);
  }
  store_normalized(team, train, draw, canvas, train.images + number * bytes);
  if (team.rank() == 0) train.labels[number] = batch.crops[number].label;
}

}  // namespace ablate::augment
