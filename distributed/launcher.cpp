#include "distributed/launcher.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "runner/core/error.h"

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

}  // namespace ablate
