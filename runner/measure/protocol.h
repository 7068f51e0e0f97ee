#pragma once

#include <cstdint>
#include <string>

namespace ablate {

enum class BenchKind {
  Infer,  ///< forward passes in evaluation mode, without gradients
  Train,  ///< whole steps: forward, backward, gradient norm, AdamW
};

/// What a speed or memory number was measured under. Numbers of different protocols never share a
/// column of a table.
struct Protocol {
  BenchKind kind = BenchKind::Infer;
  std::string dtype = "fp32";  ///< "fp32", "fp64" or "bf16"
  std::int64_t batch = 1;
  std::string device = "cpu";
  int threads = 1;

  /// "train-fp32-b128": what tables print; device and threads have columns of their own.
  std::string name() const;
};

}  // namespace ablate
