#pragma once

#include <exception>

#include "results/record.h"

namespace ablate {

/// How an exception that ends a run is told to whoever reads the spool.
Outcome outcome_of(const std::exception& error);

}  // namespace ablate
