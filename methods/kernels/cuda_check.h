#pragma once

#include <source_location>

namespace ablate::kernels {

/// Throws for a cudaError_t other than success, with the error's name, its text and the place of
/// the call: TransientError for what the machine did (out of memory, a lost device; sticky errors
/// too, whatever they came from), BugError for arguments that CUDA refuses. Takes an int, so that
/// callers need no CUDA header.
void check_cuda(int status, std::source_location where = std::source_location::current());

/// check_cuda() of the kernel launch just made. Does not synchronise: a fault while the kernel runs
/// shows at a later call.
void check_launch(std::source_location where = std::source_location::current());

/// Multiprocessors of the current device: grids of persistent blocks are multiples of it.
int multiprocessor_count();

}  // namespace ablate::kernels
