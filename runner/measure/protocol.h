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
  std::string wire = "fp32";  ///< or "bf16": how ranks on devices exchange gradients

  /// "train-fp32-b128", "train-bf16-b128-wire-bf16": what tables print; device and threads have
  /// columns of their own.
  std::string name() const;
};

}  // namespace ablate
