#pragma once

#include <string>
#include <vector>

#include "sweeps/executor.h"

namespace ablate {

/// The command line of one rank that computes the runs, all in one process when there are several.
std::vector<std::string> train_arguments(const std::vector<JobRequest>& requests,
                                         const std::string& device, const Launch& launch,
                                         const Workspace& workspace);

/// The process of several runs writes the log of the first attempt; the others get it under another
/// name.
void share_log(const std::vector<JobRequest>& requests, const Workspace& workspace);

}  // namespace ablate
