#pragma once

#include "results/record.h"
#include "runner/core/run_spec.h"
#include "runner/core/stop.h"
#include "runner/train/environment.h"

namespace ablate {

class Communicator;

/// One rank's part of one run, from data to finalized weights (the order of steps is the order of
/// the functions in run.cpp). Continues from the newest valid checkpoint. Everything it reports
/// goes to this rank's spool; the returned outcome is spooled already, as are the outcomes of
/// exceptions before they leave.
///
/// Throws SpecError, DivergedError, TransientError or Error; the same error on every rank unless
/// the machine failed, in which case the caller must end the whole job.
Outcome execute_run(const RunSpec& spec, const Environment& environment, Communicator& world,
                    StopSignal& stop);

}  // namespace ablate
