#pragma once

#include "datasets/device/crop_loader.h"
#include "tests/datasets/device_batches.h"

namespace ablate::test {

/// Images of several sizes, wide, tall, tiny, with smooth and rough parts. Sample i has label i.
class Sizes final : public Dataset {
 public:
  explicit Sizes(std::int64_t size) : size_(size) {
    facts_ = {.classes = size,
              .image_size = 0,
              .normalization = {{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}}};
  }

  std::int64_t size() const override { return size_; }
  std::int64_t label(std::int64_t index) const override { return index; }
  const DatasetFacts& facts() const override { return facts_; }
  std::string fingerprint() const override { return cat("sizes ", size_); }

  void load(std::int64_t index, Image& image) const override {
    RandomStream random(8, Purpose::Test, static_cast<std::uint64_t>(index));
    const auto upto = [&](int n) {
      return static_cast<int>(random.below(static_cast<unsigned>(n)));
    };
    image.reshape(index % 7 == 0 ? 5 + upto(20) : 30 + upto(120), 30 + upto(90));
    const int base = upto(120), step = 1 + upto(4), rough = upto(3) == 0 ? 250 : 20;
    for (int i = 0; i < 3 * image.width * image.height; ++i) {
      const int x = i / 3 % image.width, y = i / 3 / image.width, c = i % 3;
      const int value = base + (step * x / 2 + 2 * y + 30 * c) % 110 + upto(rough);
      image.pixels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(std::min(value, 255));
    }
  }

 private:
  std::int64_t size_;
  DatasetFacts facts_;
};

}  // namespace ablate::test
