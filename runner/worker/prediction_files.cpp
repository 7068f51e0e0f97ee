#include "runner/worker/prediction_files.h"

#include <algorithm>

#include "datasets/encode_png.h"
#include "datasets/linear_resize.h"
#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

constexpr int kPanel = 256;  // side of a picture in the sheet
constexpr int kGap = 4;

/// Classes in colour at equal parts with the image; pixels without one as they are.
Image overlay(const Image& image, const LabelMap& labels) {
  Image result = image;
  for (std::size_t i = 0; i < labels.classes.size(); ++i) {
    if (labels.classes[i] == LabelMap::kIgnore) continue;
    const ClassColor color = class_color(labels.classes[i]);
    for (std::size_t c = 0; c < Image::kChannels; ++c) {
      std::uint8_t& value = result.pixels[i * Image::kChannels + c];
      value = static_cast<std::uint8_t>((value + color[c] + 1) / 2);
    }
  }
  return result;
}

Image white(int width, int height) {
  Image image;
  image.reshape(width, height);
  std::ranges::fill(image.pixels, std::uint8_t{255});
  return image;
}

void paste(const Image& part, int left, int top, Image& target) {
  for (int y = 0; y < part.height; ++y) {
    std::copy_n(part.row(y), part.stride(),
                target.row(top + y) + static_cast<std::ptrdiff_t>(left) * Image::kChannels);
  }
}

std::string file_name(std::int64_t index) {
  const std::string digits = std::to_string(index);
  return cat(std::string(std::max<std::size_t>(digits.size(), 6) - digits.size(), '0'), digits,
             ".png");
}

LabelMap label_map_of(const at::Tensor& classes) {
  const at::Tensor values = classes.to(at::kCPU, at::kByte).contiguous();
  LabelMap map;
  map.reshape(static_cast<int>(values.size(1)), static_cast<int>(values.size(0)));
  std::copy_n(values.const_data_ptr<std::uint8_t>(), map.classes.size(), map.classes.begin());
  return map;
}

}  // namespace

PredictionFiles::PredictionFiles(std::filesystem::path folder, std::shared_ptr<const Dataset> data)
    : folder_(std::move(folder)), data_(std::move(data)) {
  if (!data_->facts().dense) {
    throw SpecError(
        "--predictions: this data set has a label an image; accepted: a run on one "
        "whose pixels have labels");
  }
  make_directories(folder_);
}

void PredictionFiles::add(const Batch& batch, const at::Tensor& classes) {
  for (std::size_t row = 0; row < batch.indices.size(); ++row) {
    const std::int64_t index = batch.indices[row];
    if (index < 0) continue;
    const LabelMap prediction = label_map_of(classes[static_cast<std::int64_t>(row)]);
    write_file_atomic(folder_ / file_name(index), encode_png(prediction));
    if (rows_.size() < kSheetRows) add_row(index, prediction);
  }
}

void PredictionFiles::add_row(std::int64_t index, const LabelMap& prediction) {
  Image image;
  LabelMap labels;
  data_->load(index, image);
  data_->load_labels(index, labels);
  const Size size = size_in_frame(image.width, image.height, kPanel, kPanel);
  Image row = white(3 * kPanel + 2 * kGap, size.height);
  int left = 0;
  for (const Image& panel : {image, overlay(image, labels), overlay(image, prediction)}) {
    paste(linear_resize(panel, size.width, size.height, {0, 0, size.width, size.height}), left, 0,
          row);
    left += kPanel + kGap;
  }
  rows_.push_back(std::move(row));
}

void PredictionFiles::write_sheet() const {
  if (rows_.empty()) return;
  int height = -kGap;
  for (const Image& row : rows_) height += row.height + kGap;
  Image sheet = white(rows_.front().width, height);
  int top = 0;
  for (const Image& row : rows_) {
    paste(row, 0, top, sheet);
    top += row.height + kGap;
  }
  write_file_atomic(folder_ / "sheet.png", encode_png(sheet));
}

}  // namespace ablate
