#include "datasets/device/resident_set.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::int64_t kLoadedAtOnce = 256;

std::int64_t bytes_of_image(int side) { return std::int64_t{Image::kChannels} * side * side; }

void load_samples(const Dataset& dataset, std::int64_t begin, std::int64_t end,
                  std::uint8_t* pixels, std::int64_t* labels) {
  const int side = dataset.facts().image_size;
  Image image;
  for (std::int64_t i = begin; i < end; ++i) {
    dataset.load(i, image);
    ABLATE_CHECK(image.width == side && image.height == side, "sample ", i, " is ", image.width,
                 "x", image.height, ", its set says ", side);
    std::ranges::copy(image.pixels, pixels + i * bytes_of_image(side));
    labels[i] = dataset.label(i);
  }
}

}  // namespace

std::string ResidentSet::why_not(const Dataset& dataset) {
  const int side = dataset.facts().image_size;
  if (dataset.facts().dense) return "its pixels have labels";
  if (side == 0) return "its images vary in size";
  if (side > augment::kMaxSide) {
    return cat("its images of ", side, " pixels are larger than ", augment::kMaxSide);
  }
  if (dataset.size() > kMaxBytes / bytes_of_image(side)) {
    return cat("its ", dataset.size(), " images take more than ", kMaxBytes >> 20, " MiB");
  }
  return "";
}

ResidentSet::ResidentSet(const Dataset& dataset, at::Device device) : facts_(dataset.facts()) {
  const std::string reason = why_not(dataset);
  ABLATE_CHECK(reason.empty(), "a set was to be resident, but ", reason);
  const std::int64_t side = facts_.image_size;
  const at::Tensor pixels = at::empty({dataset.size(), side, side, Image::kChannels}, at::kByte);
  const at::Tensor labels = at::empty({dataset.size()}, at::kLong);
  auto* bytes = pixels.data_ptr<std::uint8_t>();
  auto* numbers = labels.data_ptr<std::int64_t>();
  at::parallel_for(0, dataset.size(), kLoadedAtOnce, [&](std::int64_t begin, std::int64_t end) {
    load_samples(dataset, begin, end, bytes, numbers);
  });
  pixels_ = pixels.to(device);  // from pageable memory: has arrived when this returns
  labels_ = labels.to(device);
}

augment::ImageSet ResidentSet::images() const {
  return {.pixels = pixels_.const_data_ptr<std::uint8_t>(),
          .labels = labels_.const_data_ptr<std::int64_t>(),
          .count = size(),
          .side = facts_.image_size};
}

std::shared_ptr<const ResidentSet> ResidentSets::get(const Dataset& dataset, at::Device device) {
  // Held while loading: whoever asks for the same set meanwhile waits for it.
  const std::scoped_lock lock(mutex_);
  auto& known = sets_[{dataset.fingerprint(), device.str()}];
  auto set = known.lock();
  if (!set) {
    set = std::make_shared<const ResidentSet>(dataset, device);
    known = set;
  }
  return set;
}

}  // namespace ablate
