#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// One residual join, in device memory: its gain may change between replays of a captured graph.
struct DropPathJoin {
  std::uint64_t module = 0;  ///< hash64() of the branch's qualified name, as Block keys it
  double keep = 1.0;         ///< probability that a sample keeps the branch
  double gain = 1.0;         ///< of the branch
};

/// Branch scales of all joins of a step: scales[j][b] = gain / keep with probability keep, else 0
/// (Huang et al., "Deep Networks with Stochastic Depth", 2016), as Block::branch_scale() has it:
/// sample b keeps the branch when the (first_position + b)-th number of
/// RandomStream(seed, Purpose::DropPath, module, step) is below keep. Bits equal the host's.
struct DropPath {
  const DropPathJoin* joins = nullptr;  ///< (join_count)
  std::int64_t join_count = 0;
  std::int64_t batch = 0;
  std::int64_t first_position = 0;  ///< of sample 0 in the global batch
  std::uint64_t seed = 0;
  const std::int64_t* step = nullptr;  ///< one number on the device
  float* scales = nullptr;             ///< (join_count, batch)
};

void drop_path_scales(const DropPath& arguments, Stream stream);

namespace reference {
void drop_path_scales(const DropPath& arguments);
}  // namespace reference

}  // namespace ablate::kernels
