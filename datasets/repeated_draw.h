#pragma once

#include <cstdint>

#include "methods/kernels/host_device.h"

namespace ablate {

/// Repeated augmentation (Hoffer et al. 2020) puts each image of an epoch's order `repeated` times
/// in a row of draws. The draws of a global batch are dealt to its mixing groups of `group` images
/// one by one, as the sampler of DeiT (Touvron et al. 2021) deals them to ranks: copies of an image
/// lie in neighbouring groups and are not mixed with each other. `group` divides `batch`; with 0
/// (no mixing), or without copies, draws stay in a row.
/// Returns the number of the draw, in its global batch, that stands at `position`.
ABLATE_HOST_DEVICE std::int64_t dealt_draw(std::int64_t position, std::int64_t batch,
                                           std::int64_t group, int repeated) {
  if (repeated == 1 || group == 0) return position;
  return position % group * (batch / group) + position / group;
}

}  // namespace ablate
