#include "datasets/resize.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "datasets/filter_taps.h"
#include "datasets/image_kernels.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

/// Source pixels of output pixels [begin, begin + size) along one axis.
TapRange source_range(int in, int out, int begin, int size, Filter filter) {
  if (in == out) return {begin, size};
  const AxisFilter axis(in, out, filter);
  const TapRange last = axis.range(begin + size - 1);
  const int first = axis.range(begin).first;
  return {first, last.first + last.count - first};
}

}  // namespace

Box source_box(const ResizedWindow& resized) {
  const auto& [whole, target, window, filter] = resized;
  const TapRange x = source_range(whole.width, target.width, window.left, window.width, filter);
  const TapRange y = source_range(whole.height, target.height, window.top, window.height, filter);
  return {x.first, y.first, x.count, y.count};
}

void Resizer::Taps::make(int in, int out, int begin, int size, Filter filter) {
  const AxisFilter axis(in, out, filter);
  room = axis.most_taps();
  first.resize(static_cast<std::size_t>(size));
  count.resize(static_cast<std::size_t>(size));
  weights.resize(static_cast<std::size_t>(size) * static_cast<std::size_t>(room));
  raw.resize(static_cast<std::size_t>(room));
  for (int i = 0; i < size; ++i) {
    const TapRange range = axis.range(begin + i);
    double sum = 0;
    for (int k = 0; k < range.count; ++k) {
      const double weight = axis.raw_weight(begin + i, range.first + k);
      raw[static_cast<std::size_t>(k)] = weight;
      sum += weight;
    }
    first[static_cast<std::size_t>(i)] = range.first;
    count[static_cast<std::size_t>(i)] = range.count;
    std::int32_t* fixed = weights.data() + static_cast<std::ptrdiff_t>(i) * room;
    for (int k = 0; k < range.count; ++k) {
      fixed[k] = fixed_weight(raw[static_cast<std::size_t>(k)] / sum);
    }
  }
}

/// Rows of the window's width, from the source's rows.
void Resizer::resample_rows(const ResizedWindow& resized, const Box& source, const Image& image,
                            int left, int top) {
  const int width = resized.window.width;
  across_.make(resized.whole.width, resized.target.width, resized.window.left, width,
               resized.filter);
  for (int& first : across_.first) first -= source.left;
  const int pairs = (*std::max_element(across_.count.begin(), across_.count.end()) + 1) / 2;
  lanes_.assign(8 * static_cast<std::size_t>(pairs * width), 0);
  for (int o = 0; o < width; ++o) {
    std::int32_t* lanes = lanes_.data() + 8 * static_cast<std::ptrdiff_t>(pairs) * o;
    for (int k = 0; k < across_.count[static_cast<std::size_t>(o)]; ++k) {
      std::fill_n(lanes + 4 * k, 4, across_.weights_of(o)[k]);
    }
  }
  const RowTaps table{width, pairs, across_.first.data(), lanes_.data()};
  const std::size_t bytes = Image::kChannels * static_cast<std::size_t>(source.width);
  row_.resize(bytes + 1);
  wide_.assign(4 * static_cast<std::size_t>(source.width + 2 * pairs), 0);
  rows_.reshape(width, source.height);
  for (int y = 0; y < source.height; ++y) {
    std::copy_n(image.row(top + y) + Image::kChannels * left, bytes, row_.data());
    image_kernels().resample_row(row_.data(), source.width, table, wide_.data(), rows_.row(y));
  }
}

void Resizer::operator()(const ResizedWindow& resized, const Image& image, int left, int top,
                         Image& out) {
  const auto& [whole, target, window, filter] = resized;
  ABLATE_CHECK(target.width > 0 && target.height > 0, "resize to ", target.width, "x",
               target.height);
  const Box source = source_box(resized);
  if (whole.width == target.width) {
    crop(image, {left, top, source.width, source.height}, rows_);
  } else {
    resample_rows(resized, source, image, left, top);
  }
  if (whole.height == target.height) return std::swap(out, rows_);
  down_.make(whole.height, target.height, window.top, window.height, filter);
  out.reshape(window.width, window.height);
  for (int y = 0; y < window.height; ++y) {
    const auto o = static_cast<std::size_t>(y);
    image_kernels().combine_rows(rows_.row(down_.first[o] - source.top), rows_.stride(),
                                 down_.weights_of(y), down_.count[o], out.row(y));
  }
}

Image resize(const Image& image, const Box& box, int width, int height, Filter filter) {
  ABLATE_CHECK(width > 0 && height > 0, "resize to ", width, "x", height);
  Image out;
  Resizer()({{box.width, box.height}, {width, height}, {0, 0, width, height}, filter}, image,
            box.left, box.top, out);
  return out;
}

Image resize(const Image& image, int width, int height, Filter filter) {
  return resize(image, Box{0, 0, image.width, image.height}, width, height, filter);
}

}  // namespace ablate
