#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sweeps/slurm_client.h"
#include "sweeps/slurm_script.h"

namespace ablate {

/// A job array as it lies in OUT/slurm/NAME. Element i belongs to run i for good, however often it
/// is put back into the queue, so that nothing of one run can be taken for another's. Everything is
/// told by files that appear whole; nothing is locked.
class SlurmArray {
 public:
  /// A new one for these runs; `options` are sbatch's. Nothing is submitted yet.
  static SlurmArray create(const std::filesystem::path& below, std::vector<std::string> runs,
                           std::vector<std::string> options);
  /// All that lie below a folder and can be understood.
  static std::vector<SlurmArray> load(const std::filesystem::path& below);

  const std::filesystem::path& folder() const { return folder_; }
  std::string name() const { return folder_.filename(); }
  const std::vector<std::string>& runs() const { return runs_; }
  const std::vector<std::string>& options() const { return options_; }
  /// Number of the job; empty before it is known.
  const std::string& job() const { return job_; }
  void set_job(const std::string& job);
  /// "123_4".
  std::string element_id(int element) const;

  /// What sbatch is to be given: held elements, at most so many at a time.
  std::vector<std::string> submission(int at_a_time, int grace) const;

  void write_ticket(int element, const SlurmTicket& ticket) const;
  /// Whether a batch script has begun to work on a ticket.
  bool is_taken(int element, std::int64_t ticket) const;
  /// Whether the element was started again since a ticket was taken, and waits for the next one.
  bool is_started_again(int element, std::int64_t ticket) const;
  /// The exit status of a ticket's ranks, once they have ended.
  std::optional<int> exit_status(int element, std::int64_t ticket) const;
  /// For those who look on: what the controller said last.
  void write_queue(const std::map<int, SlurmElement>& elements) const;
  void remove() const;

 private:
  void save() const;
  std::filesystem::path file(const char* kind, int element, std::int64_t ticket) const;

  std::filesystem::path folder_;
  std::vector<std::string> runs_, options_;
  std::string job_;
};

/// OUT/slurm: the job arrays of an output folder.
std::filesystem::path slurm_folder(const std::filesystem::path& out);

/// What the controller last said about the element `element` of the array `name`; nothing when it
/// has said nothing.
std::optional<SlurmElement> read_queue(const std::filesystem::path& out, const std::string& name,
                                       int element);

}  // namespace ablate
