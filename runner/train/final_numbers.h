#pragma once

#include <cstdint>

#include "runner/train/evaluate.h"
#include "runner/train/run_log.h"

namespace ablate {

/// Declares what tables say about a finished run: the task's metrics on the test part, parameters,
/// multiply-accumulates and remaining tokens of the finalized model, and which samples were right.
/// Called by all ranks; rank 0 writes.
void report_finals(RunLog& log, std::int64_t step, const Evaluation& test, Model& model);

}  // namespace ablate
