#pragma once

#include <string>

namespace ablate {

/// What the programs say about their own build, and what every attempt of a run records.
struct BuildInfo {
  std::string version;     ///< "0.1.0"
  std::string revision;    ///< of the source, 12 digits; "unknown" outside a checkout and in tests
  bool dirty = false;      ///< the source differed from that revision
  std::string build_type;  ///< "Release"
  std::string compiler;    ///< "GNU 12.2.0"
  std::string flags;
  std::string torch;  ///< version of LibTorch; empty when built without
  std::string cuda;   ///< version of nvcc; empty when built without

  /// "0.1.0 (0123456789ab, modified)".
  std::string version_line() const;
};

const BuildInfo& build_info();

}  // namespace ablate
