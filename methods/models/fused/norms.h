#pragma once

#include <cstdint>
#include <map>

#include "methods/models/slots.h"

namespace ablate {

class Model;

/// What the passes of a step add to the running statistics of a model's BatchNorms, in device
/// memory, and its way into the model, so that a captured step needs no host. Belongs to one
/// structure; made anew after edits.
class DeviceNorms {
 public:
  /// `global_batch`: images of a step on all ranks.
  DeviceNorms(Model& model, std::int64_t global_batch);

  /// Whether there are any; the rest does nothing otherwise.
  bool any() const { return !parts_.empty(); }
  /// Zeroes the shares; before the first pass of each step. Can be captured, as commit().
  void begin_step();
  /// For ForwardState::norm_shares.
  const std::map<const GroupBatchNorm2d*, at::Tensor>& parts() const { return parts_; }
  /// All of them in one piece, double: to be summed over ranks before commit().
  const at::Tensor& shares() const { return shares_; }
  /// Brings the running statistics of the model up to date; not when `finite` points to 0 in device
  /// memory.
  void commit(const std::int32_t* finite);

 private:
  std::map<const GroupBatchNorm2d*, at::Tensor> parts_;
  at::Tensor shares_, table_;
};

}  // namespace ablate
