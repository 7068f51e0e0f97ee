#include "datasets/device/crop_batch.h"

#include <vector>

#include "datasets/device/crop_sample.h"

namespace ablate::augment {

CropRow crop_row(const CropPlan& plan, std::uint64_t key, std::int64_t label) {
  CropRow row{.label = label, .key = key, .source = plan.source};
  if (plan.resized) {
    row.resized = *plan.resized;
    row.source = source_box(row.resized);
  } else {
    const Size size{plan.source.width, plan.source.height};
    row.source = {0, 0, size.width, size.height};
    row.resized = {size, size, row.source};
  }
  return row;
}

void CropRoom::place(CropRow& row) {
  const std::int64_t height = row.source.height;
  row.pixels = pixels;
  row.rows = rows;
  row.taps = taps;
  pixels += kChannels * height * row.source.width;
  rows += kChannels * height * row.resized.window.width;
  taps += axis_across(row).words() + axis_down(row).words();
}

namespace host {

void make_batch(const CropBatch& batch) {
  const TrainBatch& train = batch.train;
  std::vector<std::uint8_t> tables(canvas_table_bytes());
  SampleDraw draw{};
  for (std::int64_t row = 0; row < train.rows; ++row) {
    tabulate_filters(OneThread{}, batch, batch.crops[row]);
    resample_rows(OneThread{}, batch, batch.crops[row]);
    resample_columns(OneThread{}, batch, row);
    augment_sample(OneThread{}, batch, row, draw, tables.data());
  }
  if (batch.half) {
    mix_batch(train, batch.half);
  } else {
    mix_batch(train, train.images);
  }
}

}  // namespace host

}  // namespace ablate::augment
