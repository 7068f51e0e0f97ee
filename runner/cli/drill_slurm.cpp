#include "runner/cli/drill_slurm.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/core/run_paths.h"
#include "sweeps/job_record.h"
#include "sweeps/slurm_array.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 4> kCommands = {"sbatch", "squeue", "scontrol", "scancel"};
constexpr double kCommandSeconds = 60;

std::string path_variable() {
  const char* text = std::getenv("PATH");
  return text == nullptr ? "" : text;
}

fs::path find_command(const std::string& name) {
  for (const std::string& folder : split(path_variable(), ':')) {
    if (fs::exists(fs::path(folder) / name)) return fs::absolute(fs::path(folder) / name);
  }
  throw Error(cat(name, " is not on the PATH: drills of Slurm start on a login node"));
}

fs::path sign(const fs::path& folder) { return folder / "lost"; }

std::string script_of(const std::string& name, const fs::path& folder) {
  return cat(
      "#!/bin/sh\n[ ! -e ", shell_word(sign(folder)), " ] || {\n  echo '", name,
      ": error: Unable to contact slurm controller (connect failure)' >&2\n  exit 1\n}\nexec ",
      shell_word(find_command(name)), " \"$@\"\n");
}

}  // namespace

ControllerLoss::ControllerLoss(fs::path folder) : folder_(std::move(folder)) {
  make_directories(folder_);
  for (const char* name : kCommands) {
    write_file_atomic(folder_ / name, script_of(name, folder_));
    fs::permissions(folder_ / name, fs::perms::owner_all);
  }
}

std::string ControllerLoss::path() const { return cat(folder_.string(), ":", path_variable()); }

void ControllerLoss::begin() const { write_file_atomic(sign(folder_), "lost\n"); }

void ControllerLoss::end() const { fs::remove(sign(folder_)); }

void signal_element(const fs::path& out, const std::string& run, const std::string& signal) {
  const auto record = read_job_record(RunPaths(out, run));
  if (!record) throw Error(cat("no job is on record for run ", run));
  const auto arrays = SlurmArray::load(slurm_folder(out));
  const auto array = std::find_if(arrays.begin(), arrays.end(), [&](const SlurmArray& candidate) {
    return candidate.name() == record->handle.value("array", "");
  });
  if (array == arrays.end()) throw Error(cat("no job array is on record for run ", run));
  ProcessOptions options;
  options.arguments = {"scancel", "--batch", cat("--signal=", signal),
                       array->element_id(record->handle.value("element", 0))};
  const CapturedRun answer = run_and_capture(options, {}, kCommandSeconds);
  if (!answer.status.success()) throw Error(cat("scancel: ", answer.errors));
}

}  // namespace ablate
