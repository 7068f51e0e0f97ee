#include "sweeps/scheduler.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <thread>

#include "runner/core/error.h"
#include "runner/core/run_paths.h"
#include "sweeps/job_record.h"
#include "sweeps/live_attempt.h"
#include "sweeps/packs.h"
#include "sweeps/run_state.h"
#include "sweeps/schedule_state.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPollEvery = 20ms;
constexpr auto kIngestEvery = 2s;

class Scheduler {
 public:
  Scheduler(ResultStore& store, Executor& executor, const Workspace& workspace,
            const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
            Ingester& ingester, ProgressView& view, StopSignal& stop);

  ScheduleSummary run();

 private:
  RunPaths paths(const ScheduleEntry& entry) const { return {workspace_.out, entry.run->id}; }
  void look_up(ScheduleEntry& entry);
  void recover(ScheduleEntry& entry, const RunState& state);
  void ingest(const ScheduleEntry& entry);
  std::vector<ScheduleEntry*> claim(const std::vector<ScheduleEntry*>& pack,
                                    std::vector<LiveAttempt::Plan>& plans);
  void begin(const std::vector<ScheduleEntry*>& pack);
  void give_back(const std::vector<LiveAttempt::Plan>& plans, const std::string& why);
  void start_ready();
  void skip_orphans();
  void leave_queue(ScheduleEntry& entry);
  void poll_live();
  void conclude(ScheduleEntry& entry);
  void try_again(ScheduleEntry& entry, const Outcome& outcome);
  void end(ScheduleEntry& entry, const std::string& problem);
  void follow_stop_requests();
  void stop_all();
  SweepStatus status() const;

  ResultStore& store_;
  Executor& executor_;
  const Workspace& workspace_;
  const ScheduleOptions& options_;
  Ingester& ingester_;
  ProgressView& view_;
  StopSignal& stop_;
  std::vector<ScheduleEntry> entries_;
  std::vector<Place> slots_;
  Packs packs_;
  std::exception_ptr error_;
  std::size_t finished_ = 0;
  bool stopping_ = false, killed_ = false;
  Clock::time_point begin_ = Clock::now(), next_ingest_;
};

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

void Scheduler::give_back(const std::vector<LiveAttempt::Plan>& plans, const std::string& why) {
  for (const LiveAttempt::Plan& plan : plans) {
    Outcome outcome;
    outcome.state = OutcomeState::Transient;
    outcome.cause = "node";
    outcome.detail = why;
    store_.finish(plan.request.run_id, plan.request.attempt, outcome);
    remove_job_record(plan.paths);
  }
}

/// Runs whose parent will not be done cannot be done either.
void Scheduler::skip_orphans() {
  for (ScheduleEntry& entry : entries_) {
    if (entry.stage != Stage::Waiting) continue;
    for (const std::size_t parent : entry.run->parents) {
      if (entries_[parent].stage != Stage::Ended) continue;
      entry.stage = Stage::Ended;
      entry.problem =
          cat("not started: it begins from ", entries_[parent].run->name, ", which has no result");
      view_.note(cat("skipped  ", entry.run->name, ": ", entry.problem));
      break;
    }
  }
}

void Scheduler::start_ready() {
  while (!stopping_ && free_slot(entries_, slots_.size())) {
    const std::vector<ScheduleEntry*> pack = packs_.next(entries_);
    if (pack.empty()) return;
    begin(pack);
  }
}

void Scheduler::end(ScheduleEntry& entry, const std::string& problem) {
  entry.stage = Stage::Ended;
  entry.problem = problem;
  view_.note(cat("no result  ", entry.run->name, ": ", problem));
  if (options_.fail_fast) stop_all();
}

void Scheduler::try_again(ScheduleEntry& entry, const Outcome& outcome) {
  if (outcome.last_step > entry.best_step) {
    entry.best_step = outcome.last_step;
    entry.tries = 0;
  }
  const std::string what = cat(name_of(outcome.state), " (", outcome.cause,
                               outcome.detail.empty() ? "" : ": ", outcome.detail, ")");
  if (++entry.tries > options_.launch.retries) {
    end(entry, cat(what, "; given up after ", entry.tries, " attempts without progress"));
    return;
  }
  entry.stage = Stage::Waiting;
  view_.note(cat("again    ", entry.run->name, ": ", what, " at step ", outcome.last_step));
}

void Scheduler::conclude(ScheduleEntry& entry) {
  const Outcome outcome = entry.live->outcome();
  ingest(entry);
  store_.finish(entry.run->id, entry.live->attempt(), outcome);
  packs_.ended(entry, outcome);
  const RunProgress progress = entry.live->progress();
  const std::filesystem::path log = paths(entry).log(entry.live->attempt());
  const bool whole = entry.live->attempt() == 1, withdrawn = entry.live->is_withdrawn();
  entry.live->close();
  entry.live.reset();
  const std::chrono::duration<double> took = Clock::now() - entry.started;
  if (outcome.state == OutcomeState::Done) {
    entry.stage = Stage::Done;
    if (whole) entry.seconds = took.count();
    ++finished_;
    std::string score;
    if (progress.score) score = cat(", ", progress.score->name, " ", progress.score->value);
    view_.note(cat("done     ", entry.run->name, " in ", human_duration(took.count()), score));
  } else if (outcome.state == OutcomeState::Diverged) {
    end(entry, cat("diverged at step ", outcome.last_step, ": ", outcome.detail));
  } else if (outcome.state == OutcomeState::Failed) {
    if (++entry.failures > options_.launch.retries_failed) {
      end(entry, cat("failed (", outcome.cause, "): ", outcome.detail, "; see ", log.string()));
    } else {
      store_.retry(entry.run->id);
      entry.stage = Stage::Waiting;
      view_.note(cat("again    ", entry.run->name, ": failed: ", outcome.detail));
    }
  } else if (withdrawn && !stopping_) {
    end(entry, cat("taken out of the queue at step ", outcome.last_step,
                   "; the same command continues it"));
  } else if (std::exchange(entry.regrouped, false) && outcome.state == OutcomeState::Interrupted) {
    entry.stage = Stage::Waiting;
  } else if (stopping_) {
    entry.stage = Stage::Waiting;
    view_.note(cat("stopped  ", entry.run->name, " at step ", outcome.last_step));
  } else {
    try_again(entry, outcome);
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

}  // namespace

ScheduleSummary run_schedule(ResultStore& store, Executor& executor, const Workspace& workspace,
                             const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
                             Ingester& ingester, ProgressView& view, StopSignal& stop) {
  return Scheduler(store, executor, workspace, runs, options, ingester, view, stop).run();
}

}  // namespace ablate
