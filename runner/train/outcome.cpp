#include "runner/train/outcome.h"

#include <new>
#include <system_error>

#include "runner/core/error.h"
#include "runner/core/machine_fault.h"
#include "runner/torch/torch.h"

namespace ablate {

Outcome outcome_of(const std::exception& error) {
  Outcome outcome{.state = OutcomeState::Failed, .cause = "bug", .detail = error.what()};
  outcome.exit_code = static_cast<int>(ExitCode::Failed);
  if (const auto* known = dynamic_cast<const Error*>(&error)) {
    outcome.exit_code = static_cast<int>(known->exit_code());
    switch (known->exit_code()) {
      case ExitCode::Diverged:
        outcome.state = OutcomeState::Diverged;
        outcome.cause = "nan";
        break;
      case ExitCode::Transient:
        outcome.state = OutcomeState::Transient;
        outcome.cause = "node";
        break;
      default:
        outcome.cause = dynamic_cast<const BugError*>(&error) ? "bug" : "user";
    }
  } else if (dynamic_cast<const std::bad_alloc*>(&error) ||
             dynamic_cast<const c10::OutOfMemoryError*>(&error)) {
    outcome.state = OutcomeState::Transient;
    outcome.cause = "oom";
    outcome.exit_code = static_cast<int>(ExitCode::Transient);
  } else if (const auto* system = dynamic_cast<const std::system_error*>(&error);
             system && is_machine_fault(system->code().value())) {
    outcome.state = OutcomeState::Transient;
    outcome.cause = "node";
    outcome.exit_code = static_cast<int>(ExitCode::Transient);
  }
  return outcome;
}

}  // namespace ablate
