#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "datasets/device/resident_loader.h"
#include "runner/core/text.h"
#include "tests/support/datasets.h"

namespace ablate::test {

/// Small square images of every kind that augmentation treats differently: noise, dark ramps, one
/// colour, few colours. Sample i has label i mod 10.
class Varied final : public Dataset {
 public:
  Varied(std::int64_t size, int side)
      : size_(size),
        facts_{.classes = 10,
               .image_size = side,
               .normalization = {{0.5071F, 0.4865F, 0.4409F}, {0.2673F, 0.2564F, 0.2762F}}} {}

  std::int64_t size() const override { return size_; }
  std::int64_t label(std::int64_t index) const override { return index % 10; }
  const DatasetFacts& facts() const override { return facts_; }
  std::string fingerprint() const override { return cat("varied ", size_, " ", facts_.image_size); }

  void load(std::int64_t index, Image& image) const override {
    RandomStream random(5, Purpose::Test, static_cast<std::uint64_t>(index));
    const int side = facts_.image_size;
    const auto base = static_cast<int>(random.below(120)), step = 1 + int(random.below(4));
    image.reshape(side, side);
    for (int i = 0; i < 3 * side * side; ++i) {
      const int x = i / 3 % side, y = i / 3 / side, c = i % 3;
      const int noise = static_cast<int>(random.below(256));
      const int values[] = {noise, base + step * x / 2 + 2 * y + 9 * c, base + 40 * c,
                            (x / 5 + y / 7 + c) % 3 * 90 + 20};
      image.pixels[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>(std::min(values[index % 4], 255));
    }
  }

 private:
  std::int64_t size_;
  DatasetFacts facts_;
};

/// Tensors between guards; all begins as bytes 0xff.
class GuardedBatch {
 public:
  /// With the tensors of `shape`, which stays as it is.
  explicit GuardedBatch(const Batch& shape) {
    batch.images = guarded(shape.images);
    batch.labels = guarded(shape.labels);
    batch.other_labels = guarded(shape.other_labels);
    batch.mix = guarded(shape.mix);
    batch.weights = guarded(shape.weights);
  }

  bool guards_intact() const {
    return std::ranges::all_of(guards_, [](const at::Tensor& guard) {
      return guard.view(at::kByte).eq(0xff).all().item<bool>();
    });
  }

  Batch batch;

 private:
  at::Tensor guarded(const at::Tensor& like) {
    constexpr std::int64_t kGuard = 1024;
    if (!like.defined()) return {};
    const at::Tensor all = at::empty({like.numel() + 2 * kGuard}, like.options());
    all.view(at::kByte).fill_(0xff);
    guards_.push_back(all.narrow(0, 0, kGuard));
    guards_.push_back(all.narrow(0, kGuard + like.numel(), kGuard));
    return all.narrow(0, kGuard, like.numel()).view(like.sizes());
  }

  std::vector<at::Tensor> guards_;
};

/// How far the images of two batches are apart.
struct Apart {
  double level = 0;  ///< largest difference, in levels of 256
  double share = 0;  ///< of values that differ by more than rounding

  Apart(const at::Tensor& images, const at::Tensor& expected, const Normalization& statistics) {
    const at::Tensor std = at::tensor({statistics.std[0], statistics.std[1], statistics.std[2]});
    const at::Tensor levels =
        (images.cpu() - expected).abs().to(at::kDouble) * (255 * std).view({1, 3, 1, 1});
    level = levels.max().item<double>();
    share = levels.gt(1e-3).to(at::kDouble).mean().item<double>();
  }
};

inline at::Tensor step_tensor(std::int64_t step, at::Device device) {
  return at::full({1}, step, at::kLong).to(device);
}

}  // namespace ablate::test
