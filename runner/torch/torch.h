#pragma once

/// The one door to LibTorch: no other file includes a torch, ATen or c10 header. It is also the
/// precompiled header of every torch-facing target, and the place where differences between
/// LibTorch versions are levelled.
///
/// It gives tensors and their operations (`at::`), modules (`torch::nn::Module`), and autograd
/// (`torch::autograd::Function`, `grad`, hooks). Left out on purpose: <torch/torch.h> adds layers,
/// optimizers and data loaders, of which nothing is used here, and costs every file 40 % more
/// compile time (36 against 26 CPU-seconds).

// clang-format off
// First, because clang 14 (clangd, clang-tidy) rejects the headers below in C++20 when it meets
// std::vector<c10::IValue> before IValue is complete.
#include <ATen/core/ivalue.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/module.h>
#include <torch/version.h>

#if ABLATE_HAS_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif
// clang-format on
