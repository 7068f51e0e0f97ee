#include <utility>

#include "runner/core/error.h"
#include "sweeps/job_record.h"
#include "sweeps/schedule_loop.h"

// What becomes of a run whose attempt has ended, or cannot be made.

namespace ablate {

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

void Scheduler::end(ScheduleEntry& entry, const std::string& problem) {
  entry.stage = Stage::Ended;
  entry.problem = problem;
  view_.note(cat("no result  ", entry.run->name, ": ", problem));
  if (options_.fail_fast) stop_all();
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

}  // namespace ablate
