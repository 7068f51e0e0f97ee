#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace ablate {

/// Where things are on this machine: facts of attempts, never part of an identity.
struct Workspace {
  std::filesystem::path out;                          ///< output folder, absolute
  std::filesystem::path database;                     ///< SQLite file
  std::map<std::string, std::filesystem::path> data;  ///< data set -> folder or archive
  std::filesystem::path train_program;                ///< ablate-train; empty: not found

  /// The path of ablate-train. Throws Error with the fix when there is none.
  const std::filesystem::path& require_train_program() const;
  /// "--data NAME=DIR" for every known data set.
  std::vector<std::string> data_arguments() const;
};

/// The folder that holds this program.
std::filesystem::path program_folder();

/// $ABLATE_TRAIN, else `ablate-train` beside this program, else an empty path.
std::filesystem::path find_train_program();

/// $ABLATE_DATA_<NAME> of the environment under the lower-case name, overridden by "NAME=DIR" texts
/// of the command line. Throws SpecError on a text without "=" or a folder that does not exist.
std::map<std::string, std::filesystem::path> collect_data(const std::vector<std::string>& texts);

}  // namespace ablate
