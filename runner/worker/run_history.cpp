#include "runner/worker/run_history.h"

#include "results/spool_reader.h"

namespace ablate {

std::optional<Outcome> last_outcome(const RunPaths& paths) {
  int attempt = 0;
  while (std::filesystem::exists(paths.attempt(attempt + 1))) ++attempt;
  if (attempt == 0 || !std::filesystem::exists(paths.spool(attempt, 0))) return std::nullopt;
  std::optional<Outcome> outcome;
  SpoolReader reader(paths.spool(attempt, 0));
  while (const auto frame = reader.next()) {
    if (const auto* found = std::get_if<Outcome>(&frame->record)) outcome = *found;
  }
  return outcome;
}

}  // namespace ablate
