#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "datasets/dataset.h"
#include "datasets/device/batches.h"
#include "runner/torch/torch.h"

namespace ablate {

/// A data set of small images of one size, decoded, in the memory of one device.
class ResidentSet {
 public:
  /// More does not stay on a device.
  static constexpr std::int64_t kMaxBytes = std::int64_t{2} << 30;

  /// Why a set cannot be resident; empty when it can.
  static std::string why_not(const Dataset& dataset);

  /// Loads all samples with at::parallel_for and waits for the copy: any stream may read it then.
  /// Throws what loading throws.
  ResidentSet(const Dataset& dataset, at::Device device);

  std::int64_t size() const { return labels_.size(0); }
  at::Device device() const { return labels_.device(); }
  const DatasetFacts& facts() const { return facts_; }
  augment::ImageSet images() const;

 private:
  DatasetFacts facts_;
  at::Tensor pixels_;  // (N, side, side, 3) uint8
  at::Tensor labels_;  // (N) int64
};

/// The resident sets of a process: runs that share data share one copy, for as long as one of them
/// holds it. Thread-safe.
class ResidentSets {
 public:
  /// The set with the data set's fingerprint on that device, loaded if it is not there.
  std::shared_ptr<const ResidentSet> get(const Dataset& dataset, at::Device device);

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<const ResidentSet>> sets_;
};

}  // namespace ablate
