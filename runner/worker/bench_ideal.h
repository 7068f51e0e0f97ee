#pragma once

#include <cstdint>
#include <vector>

#include "runner/measure/protocol.h"
#include "runner/measure/throughput.h"
#include "runner/train/finals.h"

namespace ablate {

/// Tokens that the two branches of one block work on; 0 where a branch has been removed.
struct BlockTokens {
  std::int64_t attention = 0, mlp = 0;
};
/// By a probe pass. Throws SpecError for a model that has no transformer blocks.
std::vector<BlockTokens> block_tokens(const Structure& structure);

/// Measured costs of the branches of one dense block, in seconds of a repetition: the norm, with
/// the residual join before it, and attention or MLP; in training with the backward pass, without
/// the optimizer.
struct BranchCosts {
  double attention = 0.0, mlp = 0.0;
};
/// On the current device, from all blocks of the structure one after another, each branch without
/// the other. Same data types and operations as the protocol's steps.
BranchCosts measure_branches(const Structure& structure, const Protocol& protocol,
                             const TimingOptions& timing);

/// Seconds that `structure` would save against `dense` if every branch cost what its tokens are
/// worth, and methods nothing:
///
///   sum over blocks of  attention (1 - n_a / N_a)  +  mlp (1 - n_m / N_m)
///
/// with n tokens of the structure's and N of the dense model's branches.
double ideal_saving(const std::vector<BlockTokens>& structure,
                    const std::vector<BlockTokens>& dense, const BranchCosts& costs);

}  // namespace ablate
