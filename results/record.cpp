#include "results/record.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "runner/core/error.h"

namespace ablate {

std::string_view name_of(FactKind kind) {
  switch (kind) {
    case FactKind::Environment:
      return "environment";
    case FactKind::Toolchain:
      return "toolchain";
    case FactKind::Machine:
      return "machine";
    case FactKind::Data:
      return "data";
    case FactKind::Lineage:
      return "lineage";
  }
  check_failed("known FactKind", cat(static_cast<int>(kind)));
}

std::string_view name_of(MetricKind kind) {
  return kind == MetricKind::Timing ? "timing" : "deterministic";
}

std::string_view name_of(FinalRule rule) {
  switch (rule) {
    case FinalRule::Last:
      return "last";
    case FinalRule::Max:
      return "max";
    case FinalRule::Min:
      return "min";
    case FinalRule::MeanLastK:
      return "mean_last_k";
  }
  check_failed("known FinalRule", cat(static_cast<int>(rule)));
}

std::string_view name_of(OutcomeState state) {
  switch (state) {
    case OutcomeState::Done:
      return "done";
    case OutcomeState::Interrupted:
      return "interrupted";
    case OutcomeState::Diverged:
      return "diverged";
    case OutcomeState::Failed:
      return "failed";
    case OutcomeState::Transient:
      return "transient";
  }
  check_failed("known OutcomeState", cat(static_cast<int>(state)));
}

std::int64_t now_us() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::microseconds>(
             system_clock::now().time_since_epoch())
      .count();
}

bool is_known_cause(std::string_view cause) {
  static constexpr std::array<std::string_view, 10> kCauses = {
      "finished", "preempted", "walltime", "oom", "nan", "hang", "node", "user", "bug", "killed"};
  return std::find(kCauses.begin(), kCauses.end(), cause) != kCauses.end();
}

}  // namespace ablate
