#include "datasets/linear_resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace ablate {
namespace {

constexpr int kWeightBits = 11;

/// Two neighbours along one side and their weights, which add up to 2^kWeightBits.
struct LinearTap {
  int low, high;
  int low_weight, high_weight;
};

/// Taps of the places first .. first + count of a side of `old_size` resized to `new_size`.
/// Positions are single precision numbers, as in OpenCV.
std::vector<LinearTap> linear_taps(int old_size, int new_size, int first, int count) {
  const double scale = 1.0 / (static_cast<double>(new_size) / old_size);
  std::vector<LinearTap> taps;
  taps.reserve(static_cast<std::size_t>(count));
  for (int place = first; place < first + count; ++place) {
    const auto position = static_cast<float>((place + 0.5) * scale - 0.5);
    const int low = static_cast<int>(std::floor(position));
    const float share = position - static_cast<float>(low);
    const int last = old_size - 1;
    constexpr float kOne = 1 << kWeightBits;
    taps.push_back({std::clamp(low, 0, last), std::clamp(low + 1, 0, last),
                    round_half_even(static_cast<double>((1.0F - share) * kOne)),
                    round_half_even(static_cast<double>(share * kOne))});
  }
  return taps;
}

/// One row, resized along x: values times 2^kWeightBits.
void resize_row(const std::uint8_t* row, const std::vector<LinearTap>& taps, std::int32_t* out) {
  for (const LinearTap& tap : taps) {
    const std::uint8_t* low = row + tap.low * Image::kChannels;
    const std::uint8_t* high = row + tap.high * Image::kChannels;
    for (int c = 0; c < Image::kChannels; ++c) {
      *out++ = low[c] * tap.low_weight + high[c] * tap.high_weight;
    }
  }
}

/// Rows resized along x, each computed once; two of them at a time.
class RowPair {
 public:
  RowPair(const Image& image, const std::vector<LinearTap>& columns)
      : image_(image), columns_(columns) {}

  const std::int32_t* row(int y) {
    for (const Kept& kept : kept_) {
      if (kept.y == y) return kept.values.data();
    }
    Kept& oldest = kept_[next_];
    next_ = 1 - next_;
    oldest.y = y;
    oldest.values.resize(columns_.size() * Image::kChannels);
    resize_row(image_.row(y), columns_, oldest.values.data());
    return oldest.values.data();
  }

 private:
  struct Kept {
    int y = -1;
    std::vector<std::int32_t> values;
  };

  const Image& image_;
  const std::vector<LinearTap>& columns_;
  std::array<Kept, 2> kept_;
  std::size_t next_ = 0;
};

/// Two products of 2 * kWeightBits, each cut to two bits before the sum is rounded: OpenCV's order.
std::uint8_t blend(std::int32_t low, std::int32_t high, const LinearTap& tap) {
  const std::int32_t sum =
      ((tap.low_weight * (low >> 4)) >> 16) + ((tap.high_weight * (high >> 4)) >> 16);
  return static_cast<std::uint8_t>(std::clamp((sum + 2) >> 2, 0, 255));
}

}  // namespace

Size size_in_frame(int width, int height, int frame_long, int frame_short) {
  const double factor = std::min(static_cast<double>(frame_long) / std::max(width, height),
                                 static_cast<double>(frame_short) / std::min(width, height));
  const auto side = [&](int old) { return std::max(1, static_cast<int>(old * factor + 0.5)); };
  return {side(width), side(height)};
}

Image linear_resize(const Image& image, int width, int height, const Box& window) {
  const auto columns = linear_taps(image.width, width, window.left, window.width);
  const auto rows = linear_taps(image.height, height, window.top, window.height);
  Image result;
  result.reshape(window.width, window.height);
  RowPair pair(image, columns);
  for (int y = 0; y < window.height; ++y) {
    const LinearTap& tap = rows[static_cast<std::size_t>(y)];
    const std::int32_t* low = pair.row(tap.low);
    const std::int32_t* high = pair.row(tap.high);
    std::uint8_t* out = result.row(y);
    for (std::size_t i = 0; i < result.stride(); ++i) out[i] = blend(low[i], high[i], tap);
  }
  return result;
}

LabelMap nearest_resize(const LabelMap& labels, int width, int height, const Box& window) {
  const double step_x = 1.0 / (static_cast<double>(width) / labels.width);
  const double step_y = 1.0 / (static_cast<double>(height) / labels.height);
  const auto source = [](int place, double step, int size) {
    return std::min(static_cast<int>(std::floor(place * step)), size - 1);
  };
  std::vector<int> columns;
  for (int x = 0; x < window.width; ++x) {
    columns.push_back(source(window.left + x, step_x, labels.width));
  }
  LabelMap result;
  result.reshape(window.width, window.height);
  for (int y = 0; y < window.height; ++y) {
    const std::uint8_t* row = labels.row(source(window.top + y, step_y, labels.height));
    std::ranges::transform(columns, result.row(y), [&](int x) { return row[x]; });
  }
  return result;
}

}  // namespace ablate
