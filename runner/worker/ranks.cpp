#include "runner/worker/ranks.h"

#include <csignal>

#include "distributed/communicator.h"
#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/core/process.h"
#include "runner/train/outcome.h"

namespace ablate {
namespace {

using Body = std::function<int(Communicator& world)>;

/// Errors that every rank should meet alike.
bool is_common(int exit_code) {
  return exit_code == static_cast<int>(ExitCode::BadSpec) ||
         exit_code == static_cast<int>(ExitCode::Diverged);
}

/// Errors that every rank meets end the ranks one by one and are told once; any other, and one that
/// the peers turn out not to share (a folder that is missing on one machine), leaves them waiting
/// in a collective, so the whole job is ended.
template <typename Session>
int run_in(Session& session, const Body& body) {
  Communicator& world = session.world();
  const int rank = world.rank();
  configure_log(LogLevel::Info, cat("rank ", rank));
  try {
    check_asked_ranks(world.size());
    return body(world);
  } catch (const std::exception& error) {
    const int code = outcome_of(error).exit_code;
    const bool shared = is_common(code) && session.all_leave();
    if (!shared || rank == 0) log_error(error.what());
    if (!shared) session.abort(code);
    return code;
  }
}

}  // namespace

int run_as_rank(const Body& body) {
  die_with_parent(SIGKILL);  // a rank without its launcher must not go on writing
  if (started_by_launcher()) {
    check_process_manager();
    MpiSession session;
    return run_in(session, body);
  }
  if (const auto rendezvous = rendezvous_of_environment()) {
    StoreSession session(*rendezvous);
    return run_in(session, body);
  }
  configure_log(LogLevel::Info, "ablate-train");
  const auto world = make_self_communicator();
  check_asked_ranks(world->size());
  return body(*world);
}

}  // namespace ablate
