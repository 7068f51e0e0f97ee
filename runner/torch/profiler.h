#pragma once

/// LibTorch's profiler (Kineto), for the one file that records traces.
#include "runner/torch/torch.h"

// clang-format off
#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>
// clang-format on
