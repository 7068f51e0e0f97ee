#include "runner/worker/ranks.h"

#include <csignal>

#include "distributed/communicator.h"
#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

using Body = std::function<int(Communicator& world)>;

/// Errors that every rank meets alike end the ranks one by one; any other leaves peers waiting in a
/// collective, so the whole job is ended.
int run_under_mpi(const Body& body) {
  MpiSession session;
  Communicator& world = session.world();
  configure_log(LogLevel::Info, cat("rank ", world.rank()));
  try {
    return body(world);
  } catch (const std::exception& error) {
    log_error(error.what());
    const auto* known = dynamic_cast<const Error*>(&error);
    const ExitCode code = known ? known->exit_code() : ExitCode::Failed;
    const bool alike = code == ExitCode::BadSpec || code == ExitCode::Diverged;
    if (!alike) session.abort(static_cast<int>(code));
    return static_cast<int>(code);
  }
}

}  // namespace

int run_as_rank(const Body& body) {
  die_with_parent(SIGKILL);  // a rank without its launcher must not go on writing
  if (started_by_launcher()) return run_under_mpi(body);
  configure_log(LogLevel::Info, "ablate-train");
  const auto world = make_self_communicator();
  return body(*world);
}

}  // namespace ablate
