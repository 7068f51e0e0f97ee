#include "sweeps/scheduler.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "runner/core/error.h"
#include "runner/core/lease.h"
#include "sweeps/job_record.h"
#include "sweeps/schedule_loop.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

constexpr auto kPollEvery = 20ms;
constexpr auto kIngestEvery = 2s;

}  // namespace

Scheduler::Scheduler(ResultStore& store, Executor& executor, const Workspace& workspace,
                     const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
                     Ingester& ingester, ProgressView& view, StopSignal& stop)
    : store_(store),
      executor_(executor),
      workspace_(workspace),
      options_(options),
      ingester_(ingester),
      view_(view),
      stop_(stop),
      entries_(runs.size()),
      slots_(executor.places()),
      packs_(options.launch.runs_per_gpu, options.trial) {
  for (std::size_t i = 0; i < runs.size(); ++i) entries_[i].run = &runs[i];
}

/// Brings an entry in line with the database.
void Scheduler::look_up(ScheduleEntry& entry) {
  const auto states = run_states(store_, {entry.run->id});
  ABLATE_CHECK(states.contains(entry.run->id), "run ", entry.run->id, " is not registered");
  const RunState& known = states.at(entry.run->id);
  if (known.state == "done") {
    entry.stage = Stage::Done;
  } else if (held_elsewhere(entry)) {
    return;
  } else if (known.state == "running") {
    recover(entry, known);
  } else if (known.state == "skipped") {
    entry.stage = Stage::Ended;
    entry.problem = "skipped on request";
  } else if (known.state == "failed" || known.state == "diverged") {
    end(entry, cat(known.state, " before (", known.cause, ": ", known.detail, "); `ablate retry ",
                   entry.run->id.substr(0, 8), "` allows another attempt"));
  } else {
    entry.stage = Stage::Waiting;
  }
}

/// Whether an `ablate-train run --all` that shares the output folder computes the run.
bool Scheduler::held_elsewhere(ScheduleEntry& entry) {
  const auto holder = Lease::holder(paths(entry).lease());
  if (holder) end(entry, cat("computed by ", *holder, "; the same command takes the result"));
  return holder.has_value();
}

/// A run that counts as running although we do not run it.
void Scheduler::recover(ScheduleEntry& entry, const RunState& state) {
  entry.live = LiveAttempt::adopt(executor_, paths(entry), state.attempts);
  if (entry.live) {
    entry.stage = Stage::Live;
    entry.slot = free_slot(entries_, slots_.size()).value_or(slots_.size());
    entry.started = Clock::now();
    view_.note(cat("adopted  ", entry.run->name, ": its job still runs"));
    return;
  }
  end_leftovers(paths(entry));
  ingest(entry);
  Outcome outcome;
  outcome.state = OutcomeState::Transient;
  outcome.cause = "killed";
  outcome.detail = "left behind by an earlier ablate";
  store_.finish(entry.run->id, state.attempts, outcome);
  remove_job_record(paths(entry));
  look_up(entry);
}

void Scheduler::ingest(const ScheduleEntry& entry) {
  const IngestReport report = ingester_.ingest({paths(entry).directory});
  for (const std::string& problem : report.problems) view_.note("problem  " + problem);
}

/// Those of the pack that may still begin, and what it takes to start them.
std::vector<ScheduleEntry*> Scheduler::claim(const std::vector<ScheduleEntry*>& pack,
                                             std::vector<LiveAttempt::Plan>& plans) {
  std::vector<ScheduleEntry*> claimed;
  for (ScheduleEntry* entry : pack) {
    const ScheduledRun& run = *entry->run;
    if (held_elsewhere(*entry)) continue;
    const auto claim = store_.claim(run.id);
    if (claim) {
      plans.push_back({paths(*entry),
                       run.spec,
                       {run.id, claim->attempt, claim->fence, run.init_file, run.teacher_file},
                       run.total_steps,
                       run.global_batch});
      claimed.push_back(entry);
      continue;
    }
    look_up(*entry);  // skipped in the meantime, say
    ABLATE_CHECK(entry->stage != Stage::Waiting, run.name, " cannot be claimed");
  }
  return claimed;
}

void Scheduler::begin(const std::vector<ScheduleEntry*>& pack) {
  std::vector<LiveAttempt::Plan> plans;
  const std::vector<ScheduleEntry*> claimed = claim(pack, plans);
  if (claimed.empty()) return;
  const std::size_t slot = *free_slot(entries_, slots_.size());
  std::vector<std::unique_ptr<LiveAttempt>> attempts;
  try {
    attempts = LiveAttempt::start(executor_, plans, slots_[slot]);
  } catch (const Error& error) {
    // Not the runs' fault: nothing else would start either.
    give_back(plans, error.what());
    error_ = std::current_exception();
    stop_all();
    return;
  }
  packs_.began(claimed, slots_[slot].gpu_bytes);
  for (std::size_t i = 0; i < claimed.size(); ++i) {
    ScheduleEntry& entry = *claimed[i];
    entry.live = std::move(attempts[i]);
    entry.stage = Stage::Live;
    entry.slot = slot;
    entry.started = Clock::now();
    const int attempt = entry.live->attempt();
    const char* const what = entry.live->is_waiting() ? "queued   "
                             : attempt == 1           ? "started  "
                                                      : "resumed  ";
    view_.note(cat(what, entry.run->name, attempt == 1 ? "" : cat(" (attempt ", attempt, ")"),
                   claimed.size() == 1 ? "" : cat(", one of ", claimed.size(), " in a process")));
  }
}

void Scheduler::start_ready() {
  while (!stopping_ && free_slot(entries_, slots_.size())) {
    const std::vector<ScheduleEntry*> pack = packs_.next(entries_);
    if (pack.empty()) return;
    begin(pack);
  }
}

/// Waiting was nobody's work.
void Scheduler::leave_queue(ScheduleEntry& entry) {
  entry.started = Clock::now();
  store_.leave_queue(entry.run->id, entry.live->attempt(), entry.live->queue_name());
}

void Scheduler::poll_live() {
  const bool ingest_now = Clock::now() >= next_ingest_;
  if (ingest_now) next_ingest_ = Clock::now() + kIngestEvery;
  for (ScheduleEntry& entry : entries_) {
    if (entry.stage != Stage::Live) continue;
    const bool waited = entry.live->is_waiting();
    const bool ended = entry.live->poll(options_.launch.stall_timeout);
    if (waited && !entry.live->is_waiting()) leave_queue(entry);
    if (ended) {
      conclude(entry);
    } else if (ingest_now) {
      ingest(entry);
    }
  }
}

void Scheduler::stop_all() {
  if (std::exchange(stopping_, true)) return;
  for (ScheduleEntry& entry : entries_) {
    if (entry.live) entry.live->ask_to_stop();
  }
}

void Scheduler::follow_stop_requests() {
  if (!stopping_ && stop_.requested()) {
    view_.note(
        cat("stopping (", stop_.reason(), "): runs end at their next step with a checkpoint"));
    stop_all();
  }
  if (StopHandlers::interrupts() < 2 || std::exchange(killed_, true)) return;
  view_.note("killing all runs; they go on from their last checkpoint when asked to");
  for (ScheduleEntry& entry : entries_) {
    if (entry.live) entry.live->kill("user");
  }
}

SweepStatus Scheduler::status() const {
  SweepStatus status = sweep_status(entries_, static_cast<int>(executor_.at_a_time(slots_.size())));
  status.stopping = stopping_;
  status.elapsed_s = std::chrono::duration<double>(Clock::now() - begin_).count();
  return status;
}

ScheduleSummary Scheduler::run() {
  store_.refresh_ready();
  for (ScheduleEntry& entry : entries_) look_up(entry);
  executor_.expect(unfinished(entries_));
  while (true) {
    follow_stop_requests();
    skip_orphans();
    start_ready();
    poll_live();
    if (!stopping_) packs_.follow(entries_);
    for (const std::string& note : executor_.take_notes()) view_.note(note);
    view_.update(status());
    const bool more = !stopping_ && any_in(entries_, Stage::Waiting);
    if (!any_in(entries_, Stage::Live) && !more) break;
    std::this_thread::sleep_for(kPollEvery);
  }
  view_.clear();
  if (error_) std::rethrow_exception(error_);
  return summarize(entries_, finished_, !stop_.reason().empty());
}

ScheduleSummary run_schedule(ResultStore& store, Executor& executor, const Workspace& workspace,
                             const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
                             Ingester& ingester, ProgressView& view, StopSignal& stop) {
  return Scheduler(store, executor, workspace, runs, options, ingester, view, stop).run();
}

}  // namespace ablate
