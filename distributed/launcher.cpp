#include "distributed/launcher.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

constexpr const char* kMeeting = "ABLATE_RENDEZVOUS";

std::optional<int> environment_integer(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  const std::string_view view(text);
  int value = 0;
  const auto [end, status] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (status != std::errc{} || end != view.data() + view.size()) return std::nullopt;
  return value;
}

std::string environment_text(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::string() : std::string(text);
}

int needed_integer(const char* name, const char* because) {
  if (const auto value = environment_integer(name)) return *value;
  const std::string text = environment_text(name);
  throw SpecError(cat(name, text.empty() ? " is not set" : cat(" = \"", text, "\" is no number"),
                      ", but ", because, " is"));
}

/// PMIX_RANK, PMI_FD and the like: their names begin alike in all versions.
bool has_process_manager() {
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::string_view(*variable).starts_with("PMI")) return true;
  }
  return false;
}

}  // namespace

std::optional<int> promised_world_size() {
  // First: mpirun inside an allocation starts its daemons with srun, whose variables leak through.
  if (const auto size = environment_integer("OMPI_COMM_WORLD_SIZE")) return size;
  if (std::getenv("SLURM_STEP_ID") == nullptr) return std::nullopt;
  if (const auto size = environment_integer("SLURM_STEP_NUM_TASKS")) return size;
  return environment_integer("SLURM_NTASKS");
}

bool started_by_launcher() {
  if (environment_integer("OMPI_COMM_WORLD_SIZE")) return true;
  // Under srun a place to meet is a wish to do without MPI.
  const auto promised = promised_world_size();
  if (!promised || !environment_text(kMeeting).empty()) return false;
  return *promised > 1 || has_process_manager();
}

void check_process_manager() {
  if (environment_integer("OMPI_COMM_WORLD_SIZE") || has_process_manager()) return;
  throw TransientError(cat("srun started ", promised_world_size().value_or(1),
                           " ranks that cannot find each other: use srun --mpi=pmix, the mpirun of "
                           "the MPI this program was built with, or, without MPI, "
                           "ABLATE_RENDEZVOUS (`ablate doctor --slurm` tries which one works)"));
}

void check_world_size(int seen) {
  const auto promised = promised_world_size();
  if (!promised || *promised == seen) return;
  throw TransientError(cat("the launcher started ", *promised, " ranks but MPI sees ", seen,
                           ": under srun use --mpi=pmix, otherwise start with the mpirun of the "
                           "MPI this program was built with"));
}

void check_asked_ranks(int seen) {
  const auto asked = environment_integer("ABLATE_RANKS");
  if (!asked || *asked == seen) return;
  throw SpecError(cat("this run was to have ", *asked, " ranks, but this process sees ", seen,
                      ": every rank would train everything by itself. Start them by srun "
                      "--mpi=pmix or by the mpirun of the MPI this program was built with "
                      "(`ablate doctor --slurm` tries which one works), or without MPI by srun "
                      "and ABLATE_RENDEZVOUS"));
}

namespace {

/// The first name of a list as Slurm writes it: "r[1-2]n[3-5,9],m1" begins with r1n3.
std::string first_host(const std::string& list) {
  std::string name;
  for (std::size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      name += list[i];
      continue;
    }
    const std::size_t end = list.find_first_not_of("0123456789", i + 1);
    name += list.substr(i + 1, end - i - 1);
    i = std::min(list.find(']', i), list.size());
  }
  return name;
}

/// Where the ranks of an srun step meet without a shared folder: at rank 0, at a port that no other
/// step of this machine is likely to have.
void meet_at_first_node(Rendezvous& meeting) {
  constexpr int kFirstPort = 20'000, kPorts = 12'000, kStepsOfAJob = 16;
  const std::string hosts = environment_text("SLURM_STEP_NODELIST");
  if (hosts.empty()) {
    throw SpecError(
        "ABLATE_RENDEZVOUS = tcp works under srun only: SLURM_STEP_NODELIST is not set; "
        "accepted elsewhere: a shared folder");
  }
  const std::string host = first_host(hosts);
  meeting.host = host == host_name() ? "localhost" : host;
  const int job = needed_integer("SLURM_JOB_ID", kMeeting);
  const int step = needed_integer("SLURM_STEP_ID", kMeeting);
  meeting.port = kFirstPort + (job % kPorts * kStepsOfAJob + step) % kPorts;
}

}  // namespace

std::optional<Rendezvous> rendezvous_of_environment() {
  if (started_by_launcher()) return std::nullopt;
  Rendezvous meeting;
  meeting.folder = environment_text(kMeeting);
  const char* place = kMeeting;
  if (meeting.folder == "tcp") {
    meeting.folder.clear();
    meet_at_first_node(meeting);
  } else if (meeting.folder.empty()) {
    // Clusters set some of these for other purposes: all four, or none.
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
      if (environment_text(name).empty()) return std::nullopt;
    }
    place = "MASTER_ADDR";
    meeting.host = environment_text("MASTER_ADDR");
    meeting.port = needed_integer("MASTER_PORT", place);
    meeting.store_runs = environment_text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  }
  const bool of_slurm = environment_text("RANK").empty() && promised_world_size().has_value();
  const char* const rank = of_slurm ? "SLURM_PROCID" : "RANK";
  const char* const size = of_slurm ? "SLURM_STEP_NUM_TASKS" : "WORLD_SIZE";
  meeting.rank = needed_integer(rank, place);
  meeting.size = of_slurm ? *promised_world_size() : needed_integer(size, place);
  if (meeting.rank < 0 || meeting.rank >= meeting.size) {
    throw SpecError(cat(rank, " = ", meeting.rank, " with ", size, " = ", meeting.size,
                        ": ranks count from 0"));
  }
  return meeting;
}

int local_rank(Communicator& world) {
  const std::vector<std::string> machines = world.all_gather(host_name());
  const auto me = machines.begin() + world.rank();
  return static_cast<int>(std::count(machines.begin(), me, *me));
}

}  // namespace ablate
