#include "runner/core/build_info.h"

#include <string_view>

#include "build_facts.h"
#include "runner/core/build_revision.h"
#include "runner/core/text.h"

namespace ablate {

[[gnu::weak]] const char* build_revision() { return "unknown"; }

const BuildInfo& build_info() {
  static const BuildInfo info = [] {
    constexpr std::string_view kDirty = "-dirty";
    std::string revision = build_revision();
    const bool dirty = revision.ends_with(kDirty);
    if (dirty) revision.resize(revision.size() - kDirty.size());
    return BuildInfo{build_facts::kVersion,
                     revision,
                     dirty,
                     build_facts::kBuildType,
                     build_facts::kCompiler,
                     build_facts::kFlags,
                     build_facts::kTorch,
                     build_facts::kCuda};
  }();
  return info;
}

std::string BuildInfo::version_line() const {
  return cat(version, " (", revision, dirty ? ", modified" : "", ")");
}

}  // namespace ablate
