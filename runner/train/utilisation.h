#pragma once

#include <optional>
#include <string>

#include "methods/models/edit.h"
#include "runner/torch/torch.h"

namespace ablate {

/// Model FLOPs utilisation of a run's training, for its structure of the moment.
class Utilisation {
 public:
  /// `ranks` devices like `device` share the images. `dtype`: of matrix products.
  Utilisation(Surgeon& surgeon, at::Device device, std::string dtype, int ranks);

  /// Nothing on the CPU and on devices whose peak is not known.
  std::optional<double> of(double images_per_s);

 private:
  Surgeon& surgeon_;
  std::string device_name_, dtype_;
  int ranks_;
  std::int64_t generation_ = -1;  // that macs_ belongs to
  double macs_ = 0;
};

}  // namespace ablate
