#include "runner/cli/drill_case.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::string_view kCheckpoints =
    "lower launch.checkpoint_every, or set launch.checkpoint_steps, and keep --out on a file "
    "system "
    "that all nodes see";
constexpr std::string_view kRepeatable =
    "attempts have to compute alike: the same kind of machine for all (launch.slurm.constraint), "
    "launch.nccl_nvls = false";

}  // namespace

const std::vector<DrillCase>& drill_cases() {
  static const std::vector<DrillCase> cases = {
      {"kill",
       "a rank is killed",
       DrillTarget::LastRank,
       DrillKind::Kill,
       "transient",
       {"killed", "node"},
       "the launcher has to end the other ranks: try another launch.slurm.launcher, or "
       "`ablate doctor`"},
      {"hang",
       "a rank never comes to a collective",
       DrillTarget::LastRank,
       DrillKind::Hang,
       "transient",
       {"hang", "node"},
       "lower launch.stall_timeout and, on several GPUs, launch.nccl_timeout"},
      {"oom",
       "a rank runs out of memory",
       DrillTarget::LastRank,
       DrillKind::OutOfMemory,
       "transient",
       {"oom"},
       "launch.micro_batch or launch.runs_per_gpu smaller, launch.slurm.memory larger"},
      {"nan",
       "the loss is not finite",
       DrillTarget::LastRank,
       DrillKind::Nan,
       "diverged",
       {"nan"},
       "leave on_nan = \"stop\" in [run]"},
      {"disk",
       "the disk is full",
       DrillTarget::FirstRank,
       DrillKind::FullDisk,
       "transient",
       {"node"},
       "--out on a file system with room (`ablate gc`), launch.keep_checkpoints = 1"},
      {"term",
       "SIGTERM comes, as before the end of a job",
       DrillTarget::LastRank,
       DrillKind::Term,
       "interrupted",
       {"preempted", "user"},
       "raise launch.slurm.grace above the time of a step and a checkpoint, and stay below the "
       "site's KillWait or GraceTime"},
      {"usr1",
       "SIGUSR1 comes, as before a preemption",
       DrillTarget::LastRank,
       DrillKind::Usr1,
       "interrupted",
       {"preempted", "user"},
       "raise launch.slurm.grace above the time of a step and a checkpoint, and stay below the "
       "site's KillWait or GraceTime"},
      {"ablate",
       "ablate itself is killed and started again",
       DrillTarget::Ablate,
       DrillKind::Slow,
       "",
       {},
       "start ablate on the machine, and with the --out, of the one before"},
      {"controller",
       "Slurm's controller is silent for a while",
       DrillTarget::Controller,
       DrillKind::Slow,
       "",
       {},
       "lower launch.slurm.look_every; squeue, scontrol and sbatch have to say that they cannot "
       "reach the controller",
       true,
       "no answer; waited for"}};
  return cases;
}

namespace {

std::string times(std::size_t n, const char* what) { return cat(n, " ", what, n == 1 ? "" : "s"); }

std::string why(const AttemptInfo& attempt) {
  return cat("attempt ", attempt.n, " counts as ",
             attempt.outcome.empty() ? "nothing" : attempt.outcome, " (", attempt.cause,
             attempt.detail.empty() ? "" : ": ", attempt.detail, ")");
}

/// Judges one case; every step either finds a fault or leaves the verdict to the next.
class Judge {
 public:
  Judge(const DrillCase& drill, const DrillRecord& undisturbed, const DrillRecord& record,
        const Launch& launch)
      : drill_(drill), undisturbed_(undisturbed), record_(record), launch_(launch) {}

  DrillVerdict judge(const std::string& struck_run);

 private:
  DrillVerdict fail(std::string found, std::string_view fix) const {
    return {false, std::move(found), std::string(fix)};
  }
  std::optional<DrillVerdict> find_loss(const DrillRun& run) const;
  std::optional<DrillVerdict> find_wrong_end(const DrillRun& struck) const;
  std::optional<DrillVerdict> find_wrong_name(const DrillRun& struck) const;
  std::optional<DrillVerdict> find_lost_steps(const DrillRun& struck) const;
  DrillVerdict praise(const DrillRun& struck) const;
  bool diverges() const { return drill_.outcome == "diverged"; }

  const DrillCase& drill_;
  const DrillRecord& undisturbed_;
  const DrillRecord& record_;
  const Launch& launch_;
};

/// A run that did not end, or did not end with the numbers and weights of the undisturbed one.
std::optional<DrillVerdict> Judge::find_loss(const DrillRun& run) const {
  if (run.state != "done") {
    const std::size_t tries = run.attempts.size();
    const bool given_up = std::ssize(run.attempts) > launch_.retries;
    const std::string last = run.attempts.empty() ? "" : "; " + why(run.attempts.back());
    return fail(cat(run.name, " is ", run.state, " after ", times(tries, "attempt"), last),
                given_up ? cat("raise launch.retries (now ", launch_.retries, ")")
                         : std::string(drill_.fix));
  }
  const DrillRun* expected = undisturbed_.find(run.id);
  ABLATE_CHECK(expected != nullptr, run.id, " is not in the undisturbed sweep");
  if (run.numbers != expected->numbers) {
    return fail(cat(run.name, " has other numbers than undisturbed"), kRepeatable);
  }
  if (run.weights != expected->weights) {
    return fail(cat(run.name, " has other weights than undisturbed"), kRepeatable);
  }
  return std::nullopt;
}

std::optional<DrillVerdict> Judge::find_wrong_end(const DrillRun& struck) const {
  const int expected = static_cast<int>(diverges() ? ExitCode::Failed : ExitCode::Done);
  if (diverges()) {
    if (struck.state != "diverged") {
      return fail(cat(struck.name, " is ", struck.state, ", not diverged"), drill_.fix);
    }
    if (struck.attempts.size() != 1) {
      return fail(cat("what diverges was tried ", times(struck.attempts.size(), "time")),
                  "set launch.retries_failed = 0");
    }
    if (record_.errors.find(struck.name + ": diverged at step") == std::string::npos) {
      return fail(cat(struck.name, " diverged, which the sweep did not say"), drill_.fix);
    }
  } else if (auto loss = find_loss(struck)) {
    return loss;
  }
  if (record_.exit_code != expected) {
    return fail(cat("ablate ended with exit status ", record_.exit_code, ", not ", expected, ": ",
                    record_.last_words()),
                drill_.fix);
  }
  return std::nullopt;
}

/// The struck attempt is to be on record as what befell it.
std::optional<DrillVerdict> Judge::find_wrong_name(const DrillRun& struck) const {
  if (drill_.outcome.empty()) return std::nullopt;
  if (struck.attempts.empty()) return fail("no attempt is on record", drill_.fix);
  const AttemptInfo& first = struck.attempts.front();
  const bool known =
      std::find(drill_.causes.begin(), drill_.causes.end(), first.cause) != drill_.causes.end();
  if (first.outcome == drill_.outcome && known) return std::nullopt;
  if (first.outcome == "done") return fail("the fault did not come", drill_.fix);
  return fail(why(first), drill_.fix);
}

std::optional<DrillVerdict> Judge::find_lost_steps(const DrillRun& struck) const {
  if (drill_.outcome.empty() || diverges()) return std::nullopt;
  const AttemptInfo& first = struck.attempts.front();
  const AttemptInfo& last = struck.attempts.back();
  if (last.first_step.value_or(0) == 0) {
    return fail(cat(struck.name, " began again at its first step"), kCheckpoints);
  }
  if (drill_.outcome == "interrupted" && last.first_step < first.last_step) {
    return fail(cat("stopped at step ", *first.last_step, ", went on from step ", *last.first_step),
                drill_.fix);
  }
  return std::nullopt;
}

DrillVerdict Judge::praise(const DrillRun& struck) const {
  const AttemptInfo& first = struck.attempts.front();
  if (diverges()) {
    return {true, cat("diverged, named, not tried again: ", first.detail), ""};
  }
  if (struck.attempts.size() == 1) return {true, "its runs went on, to the same result", ""};
  return {true,
          cat(first.outcome, " (", first.cause, "), resumed from step ",
              struck.attempts.back().first_step.value_or(0), ", same result"),
          ""};
}

DrillVerdict Judge::judge(const std::string& struck_run) {
  if (record_.timed_out) {
    return fail(cat("did not come to an end: ", record_.last_words()), drill_.fix);
  }
  const DrillRun* struck = record_.find(struck_run);
  if (struck == nullptr || record_.runs.size() != undisturbed_.runs.size()) {
    return fail(cat("runs are missing from the database: ", record_.last_words()), drill_.fix);
  }
  for (const DrillRun& run : record_.runs) {
    if (&run == struck) continue;
    if (auto loss = find_loss(run)) return *std::move(loss);
  }
  if (record_.errors.find(drill_.says) == std::string::npos) {
    return fail("nobody noticed it", drill_.fix);
  }
  for (const auto find :
       {&Judge::find_wrong_end, &Judge::find_wrong_name, &Judge::find_lost_steps}) {
    if (auto verdict = (this->*find)(*struck)) return *std::move(verdict);
  }
  return praise(*struck);
}

}  // namespace

DrillVerdict judge_drill(const DrillCase& drill, const DrillRecord& undisturbed,
                         const DrillRecord& record, const std::string& struck,
                         const Launch& launch) {
  return Judge(drill, undisturbed, record, launch).judge(struck);
}

}  // namespace ablate
