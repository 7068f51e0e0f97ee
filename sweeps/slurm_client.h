#pragma once

#include <map>
#include <string>
#include <vector>

#include "runner/core/error.h"

namespace ablate {

/// Slurm's controller is down, overloaded or slow: the same question may be answered later. What
/// was asked for may have been done nevertheless.
class SlurmSilent : public TransientError {
 public:
  using TransientError::TransientError;
};

/// What the controller says about an element of a job array.
struct SlurmElement {
  std::string job;     ///< number of the array
  std::string state;   ///< "PENDING", "RUNNING", "COMPLETED", ...
  std::string reason;  ///< why it waits: "Resources", "JobHeldUser", ...

  bool is_waiting() const;
  /// Has ended, or is not known to the controller any more (an empty state).
  bool is_over() const;
};

/// Slurm through its commands: there is no library that fits every version. All throw SlurmSilent
/// when the controller does not answer, and Error when it refuses.
class SlurmClient {
 public:
  /// The number of the new job.
  std::string submit(std::vector<std::string> arguments) const;
  /// Elements of the arrays of these names, by name and index.
  std::map<std::string, std::map<int, SlurmElement>> list(
      const std::vector<std::string>& names) const;
  void release(const std::vector<std::string>& elements) const;
  void requeue(const std::string& element) const;
  void cancel(const std::vector<std::string>& elements) const;
  /// The most elements of an array.
  int most_elements() const;
  /// "slurm-wlm 22.05.8". Throws Error when the commands are not here; needs no controller.
  std::string version() const;
  /// Returns when the controller answers.
  void ping() const;
};

}  // namespace ablate
