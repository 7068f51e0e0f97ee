#include "runner/torch/torch.h"

namespace ablate {

static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11,
              "written and tested against LibTorch 2.11");

#ifndef NDEBUG
#error "LibTorch's classes have another layout without NDEBUG than in its released libraries"
#endif

}  // namespace ablate
