#include "runner/train/outcome.h"

#include <new>
#include <string_view>
#include <system_error>

#include "runner/core/error.h"
#include "runner/core/machine_fault.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

/// Whether CUDA refused what it was asked for, which another attempt would ask for again. Other
/// errors of a device lie in it, or stay with the process until it ends.
bool is_refused(const c10::AcceleratorError& error) {
  constexpr int kInvalidValue = 1, kInvalidConfiguration = 9, kNoKernelImage = 209,
                kInvalidHandle = 400, kCaptureUnsupported = 900, kCaptureInvalidated = 901;
  const int code = error.get_error_code();
  return code == kInvalidValue || code == kInvalidConfiguration || code == kNoKernelImage ||
         code == kInvalidHandle || code == kCaptureUnsupported || code == kCaptureInvalidated;
}

/// LibTorch's allocator of host memory throws no class of its own.
bool is_out_of_memory(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         std::string_view(error.what()).find("DefaultCPUAllocator: can't allocate memory") !=
             std::string_view::npos;
}

}  // namespace

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
  } else if (is_out_of_memory(error)) {
    outcome.state = OutcomeState::Transient;
    outcome.cause = "oom";
    outcome.exit_code = static_cast<int>(ExitCode::Transient);
  } else if (const auto* device = dynamic_cast<const c10::AcceleratorError*>(&error);
             device && !is_refused(*device)) {
    outcome.state = OutcomeState::Transient;
    outcome.cause = "node";
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
