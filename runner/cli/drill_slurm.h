#pragma once

#include <filesystem>
#include <string>

namespace ablate {

/// Slurm's commands as whoever has them first on the PATH sees them: like the real ones, but while
/// the controller is "lost" they say that it does not answer. The cluster itself is left alone.
class ControllerLoss {
 public:
  /// Makes the commands in `folder`. Throws Error when the real ones are not on the PATH.
  explicit ControllerLoss(std::filesystem::path folder);

  /// The PATH with these commands first.
  std::string path() const;
  void begin() const;
  void end() const;

 private:
  std::filesystem::path folder_;
};

/// Sends a signal ("TERM") to the batch script of the array element that works on a run, as Slurm
/// itself does before the end of a job. Throws Error when there is none, or Slurm refuses.
void signal_element(const std::filesystem::path& out, const std::string& run,
                    const std::string& signal);

}  // namespace ablate
