#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace ablate {

/// How a process ended, as its exit status. `ablate` itself uses Done, Failed, BadSpec and
/// Interrupted; `ablate-train` uses all of them. The spooled outcome, not the status, is the truth:
/// a launcher may replace the status of a job by its own.
enum class ExitCode : int {
  Done = 0,
  Failed = 1,
  BadSpec = 2,
  Interrupted = 3,  ///< stopped on request; a checkpoint lets the run continue
  Transient = 4,    ///< hang, lost node, out of memory, NCCL: worth another try unchanged
  Diverged = 5,     ///< the loss is not finite: never retried unchanged
};

/// Base of everything this project throws on purpose. Messages say what is wrong, where, and what
/// would be accepted.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::Failed)
      : std::runtime_error(message), code_(code) {}

  /// The exit status a program should end with when this error reaches main().
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

/// The user's spec, command line or data is wrong; nothing has been started.
class SpecError : public Error {
 public:
  explicit SpecError(const std::string& message) : Error(message, ExitCode::BadSpec) {}
};

/// A failure of the machine rather than of the run: another attempt may succeed.
class TransientError : public Error {
 public:
  explicit TransientError(const std::string& message) : Error(message, ExitCode::Transient) {}
};

/// The training itself failed: a loss or gradient that is not finite.
class DivergedError : public Error {
 public:
  explicit DivergedError(const std::string& message) : Error(message, ExitCode::Diverged) {}
};

/// A broken promise of our own code; never the user's fault. Thrown by ABLATE_CHECK.
class BugError : public Error {
 public:
  explicit BugError(const std::string& message) : Error(message, ExitCode::Failed) {}
};

/// Throws BugError "file:line: check failed: condition: message".
[[noreturn]] void check_failed(const char* condition, const std::string& message,
                               std::source_location where = std::source_location::current());

}  // namespace ablate

/// Always-on check of our own code's promises, also in release builds (torch-facing code must be
/// built with NDEBUG, so assert() is never used). Extra arguments are concatenated into the
/// message.
#define ABLATE_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::ablate::check_failed(#condition, ::ablate::cat("" __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)

#include "runner/core/text.h"  // cat(), used by ABLATE_CHECK
