#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runner/measure/protocol.h"
#include "runner/train/finals.h"
#include "runner/train/run_data.h"

namespace ablate {

/// One way in which a run's training steps come by their images.
struct InputWay {
  std::string name;
  /// Does so many steps; seconds in which nothing was computed for want of images.
  std::function<double(std::int64_t steps)> steps;
  /// Of its loader's threads, since the last call; null where nothing is loaded.
  std::function<StageSeconds()> take_stages{};
};

/// The same training steps with images from several places; the first way is "ready": one batch
/// that lies where it is needed. On the CPU the other one is "whole", from the run's loader.
class InputSubject {
 public:
  virtual ~InputSubject() = default;
  virtual const std::vector<InputWay>& ways() const = 0;
  /// Images a second that the device finishes when they lie decoded and nothing else is done; 0:
  /// the device finishes none.
  virtual double finishing_rate(double /*seconds*/) { return 0; }
};

/// On torch's current CUDA device: "decoded", crops that lie decoded in pinned memory and are
/// finished on the device; "crops", the same from the run's loader; "whole", finished on the host.
/// Those with crops where the recipe can. Only in builds with CUDA.
std::unique_ptr<InputSubject> make_device_input(const Structure& structure,
                                                const Protocol& protocol, const RunData& data);

}  // namespace ablate
