#pragma once

#include <string>

namespace ablate {

/// "2.28.9". Only in builds with NCCL (ABLATE_HAS_NCCL).
std::string nccl_library_version();

}  // namespace ablate
