#include "runner/cli/doctor_slurm.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "sweeps/slurm_array.h"
#include "sweeps/slurm_settings.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 300s;
constexpr auto kLookEvery = 1s;
/// Until the files of a job that has ended are seen for certain.
constexpr std::chrono::seconds kSettleLocal = 3s, kSettleNetwork = 75s;
constexpr int kRanks = 2;

/// What earlier probes found is to be found again.
void forget_launchers(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with("launcher-"))
      fs::remove(entry.path(), ignored);
  }
}

SlurmArray submit_probe(const Workspace& workspace, std::vector<std::string> options) {
  const std::vector<std::string> resources = slurm_resources({}, kRanks, 1);
  options.insert(options.begin(), resources.begin(), resources.end());
  SlurmArray probe = SlurmArray::create(slurm_folder(workspace.out), {"probe"}, options);
  SlurmTicket ticket;
  ticket.number = 1;
  ticket.ranks = kRanks;
  ticket.command = {workspace.require_train_program().string(), "hello"};
  ticket.hello = ticket.command;
  ticket.takes_deadline = false;
  ticket.log = probe.folder() / "log";
  probe.write_ticket(0, ticket);
  std::vector<std::string> arguments = probe.submission(1, ticket.grace);
  arguments.erase(std::remove(arguments.begin(), arguments.end(), "--hold"), arguments.end());
  probe.set_job(SlurmClient().submit(arguments));
  return probe;
}

/// The exit status of the probe, or nothing with the state it is stuck in.
std::optional<int> await_probe(const SlurmArray& probe, std::string& stuck) {
  const bool local = file_system_kind(probe.folder()) == FileSystemKind::Local;
  auto end = Clock::now() + kPatience;
  bool over = false;
  for (; Clock::now() < end; std::this_thread::sleep_for(kLookEvery)) {
    if (const auto status = probe.exit_status(0, 1)) return status;
    try {
      const SlurmElement seen = SlurmClient().list({probe.name()})[probe.name()][0];
      stuck = cat("job ", probe.job(), " is ", seen.state, " (", seen.reason, ")");
      if (seen.is_over() && !std::exchange(over, true)) {
        end = std::min(end, Clock::now() + (local ? kSettleLocal : kSettleNetwork));
      }
    } catch (const SlurmSilent& silent) {
      stuck = silent.what();  // and is waited for
    }
  }
  return std::nullopt;
}

/// "srun" of "... 2 ranks by srun".
std::string launcher_of(const std::string& log) {
  const std::string key = cat(": ", kRanks, " ranks by ");
  const std::size_t at = log.find(key);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + key.size();
  return log.substr(begin, log.find_first_of(",\n", begin) - begin);
}

Finding probe_launchers(const Workspace& workspace, const std::vector<std::string>& options) {
  forget_launchers(slurm_folder(workspace.out));
  const SlurmArray probe = submit_probe(workspace, options);
  std::string stuck;
  const auto status = await_probe(probe, stuck);
  if (!status) {
    SlurmClient().cancel({probe.job()});
    return {Verdict::Bad, "Slurm job", stuck,
            "let --sbatch name a partition with idle nodes; the output folder has to be shared "
            "with them"};
  }
  const fs::path log = probe.folder() / "log";
  const std::string said = fs::exists(log) ? read_file(log) : "";
  const std::string launcher = launcher_of(said);
  if (*status != 0 || launcher.empty()) {
    return {Verdict::Bad, "Slurm job", cat("two ranks do not start:\n", said),
            "build with an MPI that knows this Slurm's PMIx, or load its module by "
            "launch.slurm.setup"};
  }
  probe.remove();
  const bool mpi = launcher != "own";
  return {mpi ? Verdict::Good : Verdict::Note, "Slurm job",
          cat("two ranks find each other by ", mpi ? launcher : "srun without MPI"),
          mpi ? "" : "no MPI works inside jobs: ranks talk through one process on CPUs"};
}

}  // namespace

void check_slurm(const Workspace& workspace, const std::vector<std::string>& sbatch_options,
                 Findings& findings) {
  try {
    findings.push_back({Verdict::Good, "Slurm", SlurmClient().version(), ""});
  } catch (const Error& error) {
    findings.push_back({Verdict::Bad, "Slurm", error.what(), "ask on a login node"});
    return;
  }
  try {
    SlurmClient().ping();
    findings.push_back({Verdict::Good, "slurmctld",
                        cat("answers; arrays of up to ", SlurmClient().most_elements()), ""});
    findings.push_back(probe_launchers(workspace, sbatch_options));
  } catch (const SlurmSilent& error) {
    findings.push_back({Verdict::Bad, "slurmctld", error.what(), "sweeps wait for it; ask later"});
  } catch (const Error& error) {
    findings.push_back({Verdict::Bad, "Slurm job", error.what(), "see the options of --sbatch"});
  }
}

}  // namespace ablate
