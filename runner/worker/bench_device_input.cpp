#include <optional>

#include "datasets/device/crop_feeder.h"
#include "datasets/device/pinned_feeder.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_device_loader.h"
#include "runner/worker/bench_input.h"

namespace ablate {
namespace {

/// One batch of a loader again and again.
class SameCrops final : public CropSource {
 public:
  explicit SameCrops(CropLoader& loader) : common_(loader.common()) {
    loader.seek(0, 0);
    batch_ = loader.next();
  }
  const augment::TrainBatch& common() const override { return common_; }
  CroppedBatch next() override { return batch_; }

 private:
  augment::TrainBatch common_;
  CroppedBatch batch_;
};

/// Finishes the same crops for every step.
class DecodedFeeder final : public BatchFeeder {
 public:
  DecodedFeeder(CropLoader& loader, at::Device device, bool as_half)
      : source_(loader), crops_(source_, device, as_half) {}

  std::int64_t steps_per_epoch() const override { return 1; }
  void seek(std::int64_t, std::int64_t) override {}
  const Batch& next(const c10::cuda::CUDAStream& stream) override { return crops_.next(stream); }
  void prefetch() override { crops_.prefetch(); }
  double take_wait_seconds() override { return 0; }
  StageSeconds take_stage_seconds() override { return {}; }

 private:
  SameCrops source_;
  DeviceCrops crops_;
};

class DeviceInput final : public InputSubject {
 public:
  DeviceInput(const Structure& structure, const Protocol& protocol, const RunData& data)
      : device_(at::kCUDA, c10::cuda::current_device()),
        loader_(data.train_loader(/*pinned=*/true)),
        whole_(*loader_, device_) {
    whole_.seek(0, 0);
    subject_.emplace(structure, protocol, whole_.next(c10::cuda::getCurrentCUDAStream()));
    ways_.push_back({.name = "ready", .steps = [this](std::int64_t steps) {
                       subject_->repeat(steps);
                       return 0.0;
                     }});
    if (data.why_not_cropped().empty()) add_crops(data);
    add_way("whole", whole_, /*loads=*/true);
  }

  const std::vector<InputWay>& ways() const override { return ways_; }
  double finishing_rate(double seconds) override {
    return decoded_ ? fed_rate(*decoded_, seconds) : 0.0;
  }

 private:
  void add_crops(const RunData& data) {
    auto loader = data.crop_loader(/*pinned=*/true);
    decoded_ = std::make_unique<DecodedFeeder>(*loader, device_, subject_->half_images());
    loader->seek(0, 0);
    crops_ = std::make_unique<CropFeeder>(std::move(loader), device_, subject_->half_images());
    add_way("decoded", *decoded_, /*loads=*/false);
    add_way("crops", *crops_, /*loads=*/true);
  }

  void add_way(const std::string& name, BatchFeeder& feeder, bool loads) {
    InputWay way{.name = name, .steps = [this, &feeder](std::int64_t steps) {
                   return subject_->repeat_fed(steps, feeder);
                 }};
    if (loads) way.take_stages = [&feeder] { return feeder.take_stage_seconds(); };
    ways_.push_back(std::move(way));
  }

  at::Device device_;
  std::unique_ptr<TrainLoader> loader_;
  PinnedFeeder whole_;
  std::unique_ptr<BatchFeeder> decoded_, crops_;
  std::optional<DeviceBenchSubject> subject_;
  std::vector<InputWay> ways_;
};

}  // namespace

std::unique_ptr<InputSubject> make_device_input(const Structure& structure,
                                                const Protocol& protocol, const RunData& data) {
  return std::make_unique<DeviceInput>(structure, protocol, data);
}

}  // namespace ablate
