#include <exception>
#include <thread>

#include "distributed/store_engine.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/log.h"
#include "runner/core/process.h"
#include "runner/torch/store.h"

namespace ablate {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// A session of hours waits for slow peers (evaluation, checkpoints), but not for dead ones.
constexpr std::chrono::minutes kRoundPatience{30};
constexpr std::chrono::seconds kLeaveGrace{5};

std::filesystem::path address_file(const Rendezvous& rendezvous) {
  return rendezvous.folder / "rank0.address";
}

double in_seconds(milliseconds duration) { return static_cast<double>(duration.count()) / 1e3; }

/// Rank 0 opens a store at any free port and leaves its address.
c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& rendezvous) {
  const auto file = address_file(rendezvous);
  if (std::filesystem::exists(file)) {
    throw TransientError(
        cat(file.string(), " exists already: every job needs a folder of its own"));
  }
  c10d::TCPStoreOptions options;
  options.isServer = true;
  options.waitWorkers = false;
  options.port = static_cast<std::uint16_t>(rendezvous.port);
  auto opened = c10::make_intrusive<c10d::TCPStore>("localhost", options);
  if (!rendezvous.folder.empty()) {
    write_file_atomic(file, cat(host_name(), " ", opened->getPort()));
  }
  return opened;
}

/// Waits for rank 0's address in the folder.
Rendezvous find_address(Rendezvous rendezvous) {
  const auto deadline = steady_clock::now() + rendezvous.patience;
  const auto file = address_file(rendezvous);
  while (!std::filesystem::exists(file)) {
    if (steady_clock::now() > deadline) {
      throw TransientError(cat("rank ", rendezvous.rank, ": rank 0 did not come to ",
                               rendezvous.folder.string(), " within ",
                               in_seconds(rendezvous.patience), " s"));
    }
    std::this_thread::sleep_for(milliseconds(20));
  }
  const std::vector<std::string> words = split(read_file(file), ' ');
  ABLATE_CHECK(words.size() == 2, file.string(), ": no address");
  rendezvous.host = words[0] == host_name() ? "localhost" : words[0];
  rendezvous.port = std::stoi(words[1]);
  return rendezvous;
}

c10::intrusive_ptr<c10d::Store> join_store(Rendezvous rendezvous) {
  if (rendezvous.rank == 0 && !rendezvous.store_runs) return open_store(rendezvous);
  if (!rendezvous.folder.empty()) rendezvous = find_address(std::move(rendezvous));
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(rendezvous.port);
  options.waitWorkers = false;
  options.timeout = rendezvous.patience;
  return c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options);
}

std::shared_ptr<c10d::Store> meet(const Rendezvous& rendezvous) {
  try {
    // A launcher's own store holds keys of others.
    const auto keys = c10::make_intrusive<c10d::PrefixStore>("ablate", join_store(rendezvous));
    return {keys.get(), [keys](c10d::Store*) {}};
  } catch (const c10::Error& error) {
    throw TransientError(cat("rank ", rendezvous.rank, " of ", rendezvous.size,
                             ": the ranks' store: ", error.what_without_backtrace()));
  }
}

/// "1, 3 did not come within 5 s".
std::string absence(const std::vector<int>& ranks, milliseconds patience) {
  std::vector<std::string> names;
  for (const int rank : ranks) names.push_back(std::to_string(rank));
  return cat(join(names), " did not come within ", in_seconds(patience), " s");
}

}  // namespace

struct StoreSession::State {
  explicit State(const Rendezvous& rendezvous)
      : engine(std::make_shared<StoreEngine>(meet(rendezvous), kRoundPatience)),
        world(make_store_communicator(engine, "w/", rendezvous.rank, rendezvous.size)) {
    const std::vector<int> missing = world->missing_after(rendezvous.patience);
    if (missing.empty()) return;
    throw TransientError(cat("rank ", rendezvous.rank, " of ", rendezvous.size, ": rank ",
                             absence(missing, rendezvous.patience)));
  }

  ~State() {
    try {
      const bool unwinding = std::uncaught_exceptions() > exceptions;
      if (unwinding) tell("an exception left it");
      engine->stop();
      leave();
    } catch (const std::exception& error) {
      log_error(cat("the ranks' store: ", error.what()));
    }
  }

  /// Rank 0 takes the store along, so it goes last, also after a failure: others ask the store why.
  /// They ask nothing after their farewell, which may be what it waited for.
  void leave() {
    std::vector<std::string> farewells;
    for (int r = 1; r < world->size(); ++r) farewells.push_back(cat("left/", r));
    if (world->rank() > 0) {
      engine->store().set(farewells[static_cast<std::size_t>(world->rank() - 1)],
                          std::vector<std::uint8_t>{1});
      return;
    }
    const auto deadline = steady_clock::now() + kLeaveGrace;
    while (!farewells.empty() && !engine->missing(farewells).empty() &&
           steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  void tell(std::string_view what) {
    engine->tell_failure(cat("rank ", world->rank(), " has failed: ", what));
  }

  int exceptions = std::uncaught_exceptions();
  std::shared_ptr<StoreEngine> engine;
  std::unique_ptr<Communicator> world;
};

StoreSession::StoreSession(const Rendezvous& rendezvous)
    : state_(std::make_unique<State>(rendezvous)) {}
StoreSession::~StoreSession() = default;

Communicator& StoreSession::world() { return *state_->world; }

bool StoreSession::all_leave() {
  const bool finished = state_->engine->stop();
  return state_->world->missing_after(kLeaveGrace).empty() && finished;
}

void StoreSession::abort(int exit_code) {
  try {
    state_->tell(cat("exit code ", exit_code));
    // Long enough for the others to read it, should the store die with this process.
    if (state_->world->rank() == 0) std::this_thread::sleep_for(std::chrono::seconds(1));
  } catch (const std::exception& error) {
    log_error(cat("the ranks' store: ", error.what()));
  }
  std::_Exit(exit_code);
}

}  // namespace ablate
