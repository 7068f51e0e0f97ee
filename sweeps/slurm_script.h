#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ablate {

/// What the batch script of an array element is to do next. Written as shell assignments, so that a
/// compute node needs bash and nothing of ours but the ranks' program.
struct SlurmTicket {
  std::int64_t number = 0;  ///< rises: a script never works on one ticket twice
  int ranks = 1;
  int threads = 1;
  std::string launcher = "auto";
  std::string setup;                 ///< shell line before the ranks
  std::int64_t limit = 0;            ///< seconds a job may last; 0: only Slurm knows
  int grace = 120;                   ///< seconds before its end at which the run stops
  std::vector<std::string> command;  ///< of one rank
  bool takes_deadline = true;        ///< whether the command understands --deadline
  std::vector<std::string> hello;    ///< a program that says "rank R of N on HOST", for the probe
  std::vector<std::string> stop_files;
  std::string log;

  std::string text() const;
};

/// The batch script of every array: `script FOLDER`. An element takes its ticket from FOLDER,
/// starts the ranks by a launcher that was seen to work on this cluster, hands every signal on as a
/// stop file, and leaves the exit status there.
const std::string& slurm_script();

/// `text` as one word of the shell.
std::string shell_word(const std::string& text);

}  // namespace ablate
