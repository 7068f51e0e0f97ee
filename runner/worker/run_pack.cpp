#include "runner/worker/run_pack.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "distributed/communicator.h"
#include "results/spool_writer.h"
#include "runner/core/error.h"
#include "runner/core/lease.h"
#include "runner/core/log.h"
#include "runner/core/run_paths.h"
#include "runner/torch/torch.h"
#include "runner/train/outcome.h"
#include "runner/train/run.h"
#include "runner/train/run_gate.h"
#include "runner/worker/run_history.h"
#include "runner/worker/run_start.h"
#include "runner/worker/torch_switches.h"

namespace ablate {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(300);  // at stop requests
constexpr auto kAskEvery = std::chrono::seconds(1);          // who computes a run: a file is read

enum class PackStage {
  Waiting,
  Running,
  Done,
  Ended,  // without a result
};

struct PackEntry {
  PackedRun run;
  std::vector<std::size_t> parents;  // in the list
  PackStage stage = PackStage::Waiting;
  ExitCode code = ExitCode::Interrupted;  // of a run that was never started
  std::optional<Lease> lease;             // where several processes share the folder
  LeaseWatch watch;
  std::chrono::steady_clock::time_point next_look{};  // at the lease of another process

  RunPaths paths() const { return {run.environment.out, run.spec.id()}; }
  std::string name() const { return cat("run ", run.spec.id().substr(0, 8)); }
};

/// Whether runs with this setting (cpu, cuda, auto) can come to lie on a CUDA device.
bool may_use_cuda([[maybe_unused]] const std::string& device) {
#if ABLATE_HAS_CUDA
  return device != "cpu" && c10::cuda::device_count() > 0;
#else
  return false;
#endif
}

/// False after a fault of the device that outlives the call it came from: only a new process helps.
bool device_answers() {
#if ABLATE_HAS_CUDA
  std::size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess;
#else
  return true;
#endif
}

/// A run that failed before it had a spool says why in one.
void spool_failure(const PackEntry& entry, const Outcome& outcome) {
  const Environment& environment = entry.run.environment;
  if (environment.attempt == 0) return;
  const auto file = entry.paths().spool(environment.attempt, 0);
  if (std::filesystem::exists(file)) return;
  SpoolWriter spool(file, {.run_uid = entry.run.spec.id(), .attempt = environment.attempt});
  spool.outcome(outcome);
  spool.close();
}

int severity(ExitCode code) {
  constexpr std::array kMildFirst = {ExitCode::Done,     ExitCode::Interrupted, ExitCode::Transient,
                                     ExitCode::Diverged, ExitCode::Failed,      ExitCode::BadSpec};
  return static_cast<int>(std::find(kMildFirst.begin(), kMildFirst.end(), code) -
                          kMildFirst.begin());
}

class RunPack {
 public:
  RunPack(std::vector<PackedRun> runs, const PackOptions& options);

  int run();

 private:
  void work();
  PackEntry* take();
  bool may_begin(PackEntry& entry);
  static bool take_lease(PackEntry& entry);
  bool ended_before(PackEntry& entry);
  ExitCode compute(PackEntry& entry);
  void conclude(PackEntry& entry, ExitCode code);
  void end(PackEntry& entry, ExitCode code, const std::string& why);
  bool stopping() { return device_lost_ || stop_.requested(); }

  const PackOptions options_;
  StopSignal stop_;
  std::vector<PackEntry> entries_;
  std::size_t at_a_time_;
  std::mutex mutex_;  // of stages and of the sign below
  std::condition_variable changed_;
  bool device_lost_ = false;
};

/// How many ancestors of a run the list holds, one above the other.
std::size_t depth_of(const std::string& id, const std::map<std::string, const PackedRun*>& runs) {
  std::size_t depth = 0;
  for (const Parent& parent : runs.at(id)->spec.parents) {
    if (runs.contains(parent.run_id)) depth = std::max(depth, 1 + depth_of(parent.run_id, runs));
  }
  return depth;
}

/// Parents before their children, else in the given order. Ids are hashes over the parents' ids, so
/// there are no circles.
std::vector<PackEntry> in_order(std::vector<PackedRun> runs) {
  std::map<std::string, const PackedRun*> known;
  std::vector<std::pair<std::size_t, std::size_t>> order;  // depth, position
  for (const PackedRun& run : runs) {
    if (!known.emplace(run.spec.id(), &run).second) {
      throw SpecError(cat("run ", run.spec.id(), " is named twice"));
    }
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    order.emplace_back(depth_of(runs[i].spec.id(), known), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<PackEntry> entries;
  std::map<std::string, std::size_t> places;
  for (const auto& [depth, i] : order) {
    PackEntry& entry = entries.emplace_back();
    entry.run = std::move(runs[i]);
    for (const Parent& parent : entry.run.spec.parents) {
      if (places.contains(parent.run_id)) entry.parents.push_back(places.at(parent.run_id));
    }
    places[entry.run.spec.id()] = entries.size() - 1;
  }
  return entries;
}

RunPack::RunPack(std::vector<PackedRun> runs, const PackOptions& options)
    : options_(options), stop_(options.stop), entries_(in_order(std::move(runs))) {
  at_a_time_ =
      options.at_a_time == 0 ? entries_.size() : std::min(options.at_a_time, entries_.size());
  for (PackEntry& entry : entries_) {
    entry.run.environment.runs_in_process = static_cast<int>(at_a_time_);
  }
}

int RunPack::run() {
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < at_a_time_; ++i) threads.emplace_back([this] { work(); });
  }
  ExitCode worst = ExitCode::Done;
  std::size_t done = 0;
  for (const PackEntry& entry : entries_) {
    if (entry.stage == PackStage::Done) ++done;
    const ExitCode code = entry.stage == PackStage::Done ? ExitCode::Done : entry.code;
    if (severity(code) > severity(worst)) worst = code;
  }
  log_info(cat(done, " of ", entries_.size(), " runs are done"));
  return static_cast<int>(worst);
}

void RunPack::work() {
  while (PackEntry* entry = take()) conclude(*entry, compute(*entry));
}

/// The next run to compute; waits until there is one. Null when there is nothing left to do.
PackEntry* RunPack::take() {
  std::unique_lock lock(mutex_);
  while (!stopping()) {
    bool waiting = false;
    for (PackEntry& entry : entries_) {
      if (entry.stage != PackStage::Waiting) continue;
      if (may_begin(entry)) {
        entry.stage = PackStage::Running;
        return &entry;
      }
      waiting = waiting || entry.stage == PackStage::Waiting;
    }
    if (!waiting) return nullptr;
    changed_.wait_for(lock, kLookEvery);
  }
  return nullptr;
}

bool RunPack::may_begin(PackEntry& entry) {
  for (const std::size_t parent : entry.parents) {
    const PackEntry& from = entries_[parent];
    if (from.stage == PackStage::Ended) {
      end(entry, from.code, cat("not started: it begins from ", from.name(), ", without a result"));
      return false;
    }
    if (from.stage != PackStage::Done) return false;
  }
  if (!options_.shared) return true;
  if (!take_lease(entry)) return false;  // another process computes it
  if (!ended_before(entry)) return true;
  entry.lease.reset();
  return false;
}

bool RunPack::take_lease(PackEntry& entry) {
  const auto now = std::chrono::steady_clock::now();
  if (now < entry.next_look) return false;
  std::string holder;
  entry.lease = Lease::try_take(entry.paths().lease(), holder, entry.watch);
  entry.next_look = now + kAskEvery;
  return entry.lease.has_value();
}

bool RunPack::ended_before(PackEntry& entry) {
  const auto outcome = last_outcome(entry.paths());
  if (!outcome) return false;
  if (outcome->state == OutcomeState::Done) entry.stage = PackStage::Done;
  if (outcome->state == OutcomeState::Diverged) {
    end(entry, ExitCode::Diverged, cat("diverged before: ", outcome->detail));
  }
  return entry.stage != PackStage::Waiting;
}

void RunPack::end(PackEntry& entry, ExitCode code, const std::string& why) {
  entry.stage = PackStage::Ended;
  entry.code = code;
  log_warning(cat(entry.name(), ": ", why));
}

/// Nothing that happens to one run leaves this function but its exit status.
ExitCode RunPack::compute(PackEntry& entry) {
  const LogName name(entry.name());
  Environment& environment = entry.run.environment;
  try {
    set_thread_switches(environment.threads);
    const RunGate::Member member(RunGate::of_process());
    const auto world = make_self_communicator();
    claim_attempt(entry.run.spec, environment, *world);
    StopOptions options = options_.stop;
    if (options.stop_file.empty()) options.stop_file = entry.paths().stop_file();
    StopSignal stop(options);
    log_info(cat("attempt ", environment.attempt));
    return static_cast<ExitCode>(execute_run(entry.run.spec, environment, *world, stop).exit_code);
  } catch (const std::exception& error) {
    log_error(error.what());
    const Outcome outcome = outcome_of(error);
    try {
      spool_failure(entry, outcome);
    } catch (const std::exception& unwritten) {
      log_error(cat("the outcome is not recorded: ", unwritten.what()));
    }
    return static_cast<ExitCode>(outcome.exit_code);
  }
}

void RunPack::conclude(PackEntry& entry, ExitCode code) {
  const std::lock_guard lock(mutex_);
  entry.stage = code == ExitCode::Done ? PackStage::Done : PackStage::Ended;
  entry.code = code;
  entry.lease.reset();
  // After a fault of the device every run of the process meets it, and a new one would, too.
  const bool on_device = may_use_cuda(entry.run.environment.device);
  if (code == ExitCode::Transient && on_device && !device_answers()) device_lost_ = true;
  static constexpr const char* kSaid[] = {"done",        "failed",    "bad spec",
                                          "interrupted", "transient", "diverged"};
  log_info(cat(entry.name(), ": ", kSaid[static_cast<int>(code)]));
  changed_.notify_all();
}

}  // namespace

int run_pack(std::vector<PackedRun> runs, const PackOptions& options) {
  return RunPack(std::move(runs), options).run();
}

}  // namespace ablate
