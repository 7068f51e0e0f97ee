#include "runner/worker/bench_device_loader.h"

#include <functional>

#include "datasets/device/crop_feeder.h"
#include "datasets/device/pinned_feeder.h"
#include "runner/core/error.h"
#include "runner/measure/throughput.h"

namespace ablate {
namespace {

/// Calls `enqueue`, which starts on the next batch and returns its rows, until the time is over;
/// waits for the device now and then, so that the host is never far ahead.
double enqueued_rate(const std::function<std::int64_t()>& enqueue, double seconds) {
  constexpr int kAtOnce = 64;
  const auto some = [&] {
    std::int64_t rows = 0;
    for (int i = 0; i < kAtOnce; ++i) rows += enqueue();
    c10::cuda::device_synchronize();
    return rows;
  };
  some();
  std::int64_t images = 0;
  const double start = steady_seconds();
  double elapsed = 0;
  while (elapsed < seconds) {
    images += some();
    elapsed = steady_seconds() - start;
  }
  return static_cast<double>(images) / elapsed;
}

double resident_rate(const RunData& data, at::Device device, double seconds) {
  const auto loader = data.resident_loader(device);
  const Batch target = loader->make_buffers();
  const std::int64_t rows = target.images.size(0), per_step = loader->micro_batches_per_step();
  const at::Tensor steps = at::arange(loader->steps_per_epoch(), at::kLong).to(device);
  std::int64_t number = 0;
  return enqueued_rate(
      [&] {
        const std::int64_t step = number / per_step % loader->steps_per_epoch();
        loader->enqueue(target, number++ % per_step, steps.const_data_ptr<std::int64_t>() + step);
        return rows;
      },
      seconds);
}

}  // namespace

double fed_rate(BatchFeeder& feeder, double seconds) {
  feeder.seek(0, 0);
  return enqueued_rate(
      [&] { return feeder.next(c10::cuda::getCurrentCUDAStream()).images.size(0); }, seconds);
}

DeviceLoaderRate device_loader_rate(const RunData& data, at::Device device, double seconds) {
  const c10::cuda::CUDAGuard guard(device);
  const std::string reason = data.why_not_resident();
  if (reason.empty()) return {resident_rate(data, device, seconds), "device"};
  if (data.why_not_cropped().empty()) {
    CropFeeder feeder(data.crop_loader(/*pinned=*/true), device);
    return {fed_rate(feeder, seconds), "device, from crops of the host"};
  }
  const auto loader = data.train_loader(/*pinned=*/true);
  PinnedFeeder feeder(*loader, device);
  return {fed_rate(feeder, seconds), cat("host: ", reason)};
}

}  // namespace ablate
