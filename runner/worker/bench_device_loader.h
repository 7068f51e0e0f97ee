#pragma once

#include <string>

#include "runner/train/run_data.h"

namespace ablate {

class BatchFeeder;

struct DeviceLoaderRate {
  double images_per_s = 0;
  std::string made;  ///< where batches were made: "device", or "host" and why
};

/// How many images of a run's training batches arrive on `device` in a second, for about `seconds`:
/// made there where that is possible, else brought there from the host.
DeviceLoaderRate device_loader_rate(const RunData& data, at::Device device, double seconds);

/// How many images a feeder brings in a second when nothing is done with them.
double fed_rate(BatchFeeder& feeder, double seconds);

}  // namespace ablate
