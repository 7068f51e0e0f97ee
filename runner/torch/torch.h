#pragma once

/// The one door to LibTorch: no other file includes a torch, ATen or c10 header. It is also the
/// precompiled header of every torch-facing target, and the place where differences between
/// LibTorch versions are levelled.

// First, because clang 14 (clangd, clang-tidy) rejects the headers below in C++20 when it meets
// std::vector<c10::IValue> before IValue is complete.
#include <ATen/core/ivalue.h>

#include <torch/torch.h>
