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
  void begin(ScheduleEntry& entry);
  void start_ready();
  void skip_orphans();
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
  std::vector<std::vector<int>> slots_;
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
      slots_(divide_cpus(executor.cpus(), options.launch.jobs)) {
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

void Scheduler::begin(ScheduleEntry& entry) {
  const auto claim = store_.claim(entry.run->id);
  if (!claim) {
    look_up(entry);  // skipped in the meantime, say
    ABLATE_CHECK(entry.stage != Stage::Waiting, entry.run->name, " cannot be claimed");
    return;
  }
  entry.slot = *free_slot(entries_, slots_.size());
  entry.started = Clock::now();
  try {
    entry.live = LiveAttempt::start(
        executor_, paths(entry), entry.run->spec,
        {entry.run->id, claim->attempt, claim->fence, entry.run->init_file, slots_[entry.slot]});
    entry.stage = Stage::Live;
  } catch (const Error& error) {
    // Not the run's fault: nothing else would start either.
    Outcome outcome;
    outcome.state = OutcomeState::Transient;
    outcome.cause = "node";
    outcome.detail = error.what();
    store_.finish(entry.run->id, claim->attempt, outcome);
    remove_job_record(paths(entry));
    error_ = std::current_exception();
    stop_all();
    return;
  }
  view_.note(cat(claim->attempt == 1 ? "started  " : "resumed  ", entry.run->name,
                 claim->attempt == 1 ? "" : cat(" (attempt ", claim->attempt, ")")));
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
  for (ScheduleEntry& entry : entries_) {
    if (stopping_ || !free_slot(entries_, slots_.size())) return;
    const bool ready =
        entry.stage == Stage::Waiting &&
        std::all_of(entry.run->parents.begin(), entry.run->parents.end(),
                    [&](std::size_t parent) { return entries_[parent].stage == Stage::Done; });
    if (ready) begin(entry);
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
  const RunProgress progress = entry.live->progress();
  const std::filesystem::path log = paths(entry).log(entry.live->attempt());
  const bool whole = entry.live->attempt() == 1;
  entry.live->close();
  entry.live.reset();
  const std::chrono::duration<double> took = Clock::now() - entry.started;
  if (outcome.state == OutcomeState::Done) {
    entry.stage = Stage::Done;
    if (whole) entry.seconds = took.count();
    ++finished_;
    std::string top1;
    if (progress.top1) top1 = cat(", top1 ", *progress.top1);
    view_.note(cat("done     ", entry.run->name, " in ", human_duration(took.count()), top1));
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
  } else if (stopping_) {
    entry.stage = Stage::Waiting;
    view_.note(cat("stopped  ", entry.run->name, " at step ", outcome.last_step));
  } else {
    try_again(entry, outcome);
  }
}

void Scheduler::poll_live() {
  const bool ingest_now = Clock::now() >= next_ingest_;
  if (ingest_now) next_ingest_ = Clock::now() + kIngestEvery;
  for (ScheduleEntry& entry : entries_) {
    if (entry.stage != Stage::Live) continue;
    if (entry.live->poll(options_.launch.stall_timeout)) {
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
  SweepStatus status = sweep_status(entries_, options_.launch.jobs);
  status.stopping = stopping_;
  status.elapsed_s = std::chrono::duration<double>(Clock::now() - begin_).count();
  return status;
}

ScheduleSummary Scheduler::run() {
  store_.refresh_ready();
  for (ScheduleEntry& entry : entries_) {
    // The database may be younger than the spools: lost, or moved to another machine.
    if (std::filesystem::exists(paths(entry).directory)) ingest(entry);
    look_up(entry);
  }
  while (true) {
    follow_stop_requests();
    skip_orphans();
    start_ready();
    poll_live();
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
