#pragma once

#include <functional>

#include <gtest/gtest.h>

#include "runner/torch/torch.h"

#if ABLATE_HAS_CUDA

namespace ablate::test {

/// Expects `pass`, which clears and computes gradients, to leave `eager` in them when it runs on a
/// stream of its own, and in every replay of a CUDA graph that it was captured into.
inline void expect_captured_bits(const std::function<void()>& pass,
                                 const std::function<at::Tensor()>& gradients,
                                 const at::Tensor& eager) {
  c10::cuda::device_synchronize();
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  at::cuda::CUDAGraph graph;
  pass();
  EXPECT_TRUE(at::equal(gradients(), eager));
  stream.synchronize();
  graph.capture_begin();
  try {
    pass();
  } catch (...) {  // an open capture would fail every test that follows
    EXPECT_ANY_THROW(graph.capture_end());
    static_cast<void>(cudaGetLastError());
    throw;
  }
  graph.capture_end();
  for (int i = 0; i < 2; ++i) {
    graph.replay();
    EXPECT_TRUE(at::equal(gradients(), eager));
  }
  stream.synchronize();
  graph.reset();
}

}  // namespace ablate::test

#endif  // ABLATE_HAS_CUDA
