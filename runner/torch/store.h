#pragma once

/// The door to LibTorch's key-value stores, which few files need.

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "runner/torch/torch.h"
