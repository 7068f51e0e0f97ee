#include "distributed/launcher.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "runner/core/error.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

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

}  // namespace

std::optional<int> promised_world_size() {
  // First: mpirun inside an allocation starts its daemons with srun, whose variables leak through.
  if (const auto size = environment_integer("OMPI_COMM_WORLD_SIZE")) return size;
  if (std::getenv("SLURM_STEP_ID") == nullptr) return std::nullopt;
  if (const auto size = environment_integer("SLURM_STEP_NUM_TASKS")) return size;
  return environment_integer("SLURM_NTASKS");
}

bool started_by_launcher() { return promised_world_size().has_value(); }

void check_world_size(int seen) {
  const auto promised = promised_world_size();
  if (!promised || *promised == seen) return;
  throw TransientError(cat("the launcher started ", *promised, " ranks but MPI sees ", seen,
                           ": under srun use --mpi=pmix, otherwise start with the mpirun of the "
                           "MPI this program was built with"));
}

std::optional<Rendezvous> rendezvous_of_environment() {
  if (started_by_launcher()) return std::nullopt;
  Rendezvous meeting;
  meeting.folder = environment_text("ABLATE_RENDEZVOUS");
  const char* place = "ABLATE_RENDEZVOUS";
  if (meeting.folder.empty()) {
    // Clusters set some of these for other purposes: all four, or none.
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
      if (environment_text(name).empty()) return std::nullopt;
    }
    place = "MASTER_ADDR";
    meeting.host = environment_text("MASTER_ADDR");
    meeting.port = needed_integer("MASTER_PORT", place);
    meeting.store_runs = environment_text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  }
  meeting.rank = needed_integer("RANK", place);
  meeting.size = needed_integer("WORLD_SIZE", place);
  if (meeting.rank < 0 || meeting.rank >= meeting.size) {
    throw SpecError(
        cat("RANK = ", meeting.rank, " with WORLD_SIZE = ", meeting.size, ": ranks count from 0"));
  }
  return meeting;
}

int local_rank(Communicator& world) {
  const std::vector<std::string> machines = world.all_gather(host_name());
  const auto me = machines.begin() + world.rank();
  return static_cast<int>(std::count(machines.begin(), me, *me));
}

}  // namespace ablate
