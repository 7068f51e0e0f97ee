#include "sweeps/live_attempt.h"

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "sweeps/job_record.h"

namespace ablate {
namespace {

using Clock = std::chrono::steady_clock;

// With less no attempt can tell in its spool how it ended.
constexpr std::uint64_t kNoSpaceBytes = 64 << 10;

void prepare_folder(const RunPaths& paths, const std::string& spec, const JobRequest& request) {
  make_directories(paths.attempt(request.attempt));
  // Anew when it is damaged.
  if (!std::filesystem::exists(paths.spec()) || read_file(paths.spec()) != spec) {
    write_file_atomic(paths.spec(), spec);
  }
  std::filesystem::remove(paths.stop_file());
  write_file_atomic(paths.fence(), cat(request.fence));
}

Outcome make_outcome(OutcomeState state, std::string cause, std::string detail) {
  Outcome outcome;
  outcome.state = state;
  outcome.cause = std::move(cause);
  outcome.detail = std::move(detail);
  return outcome;
}

}  // namespace

Outcome outcome_of_exit(const ExitStatus& status) {
  const std::string detail = status.code < 0
                                 ? "ended without an outcome; its exit status tells nothing"
                                 : "no outcome was recorded; " + status.str();
  const auto is = [&](ExitCode code) { return status.code == static_cast<int>(code); };
  Outcome outcome;
  if (is(ExitCode::Interrupted)) {
    outcome = make_outcome(OutcomeState::Interrupted, "user", detail);
  } else if (is(ExitCode::Diverged)) {
    outcome = make_outcome(OutcomeState::Diverged, "nan", detail);
  } else if (is(ExitCode::Transient)) {
    outcome = make_outcome(OutcomeState::Transient, "node", detail);
  } else if (status.code < 0 || status.code > 128) {
    outcome = make_outcome(OutcomeState::Transient, "killed", detail);
  } else {
    outcome = make_outcome(OutcomeState::Failed, "bug", detail);
  }
  outcome.exit_code = status.code;
  return outcome;
}

LiveAttempt::LiveAttempt(RunPaths paths, int attempt, std::unique_ptr<Job> job)
    : paths_(std::move(paths)),
      attempt_(attempt),
      job_(std::move(job)),
      follower_(paths_.spool(attempt, 0)),
      last_record_(Clock::now()) {}

std::vector<std::unique_ptr<LiveAttempt>> LiveAttempt::start(Executor& executor,
                                                             const std::vector<Plan>& plans,
                                                             const Place& place) {
  std::vector<JobRequest> requests;
  for (const Plan& plan : plans) {
    prepare_folder(plan.paths, plan.spec, plan.request);
    requests.push_back(plan.request);
  }
  auto jobs = executor.start(requests, place);
  ABLATE_CHECK(jobs.size() == plans.size());
  std::vector<std::unique_ptr<LiveAttempt>> attempts;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const Plan& plan = plans[i];
    const int attempt = plan.request.attempt;
    write_job_record(plan.paths, {attempt, jobs[i]->handle(), plan.total_steps, plan.global_batch});
    attempts.emplace_back(new LiveAttempt(plan.paths, attempt, std::move(jobs[i])));
  }
  return attempts;
}

std::unique_ptr<LiveAttempt> LiveAttempt::adopt(Executor& executor, const RunPaths& paths,
                                                int attempt) {
  const auto record = read_job_record(paths);
  if (!record || record->attempt != attempt) return nullptr;
  auto job = executor.adopt(record->handle);
  if (!job) return nullptr;
  return std::unique_ptr<LiveAttempt>(new LiveAttempt(paths, attempt, std::move(job)));
}

bool LiveAttempt::poll(double stall_timeout) {
  if (!status_) status_ = job_->poll();
  // The spool is read after the status: what the ranks wrote before they ended is then all there.
  const std::uint64_t before = progress_.records;
  progress_ = follower_.update();
  if (progress_.records != before || job_->is_waiting() || job_->is_suspended()) {
    last_record_ = Clock::now();
  }
  if (status_) {
    // A file that was open all along may lack its end on a network file system.
    if (!progress_.outcome) progress_ = SpoolFollower(paths_.spool(attempt_, 0)).update();
    return true;
  }
  // In order: whoever has sealed its spool writes nothing more.
  if (progress_.sealed && job_->is_shared()) return true;
  const std::chrono::duration<double> silence = Clock::now() - last_record_;
  if (silence.count() > stall_timeout) kill("hang");
  return false;
}

/// What another rank recorded: often it alone knows why the job ended.
std::optional<Outcome> LiveAttempt::outcome_of_others() const {
  for (int rank = 1; std::filesystem::exists(paths_.spool(attempt_, rank)); ++rank) {
    const RunProgress progress = SpoolFollower(paths_.spool(attempt_, rank)).update();
    if (progress.outcome && progress.outcome->state != OutcomeState::Done) return progress.outcome;
  }
  return std::nullopt;
}

Outcome LiveAttempt::outcome() const {
  if (progress_.outcome) return *progress_.outcome;
  if (auto told = outcome_of_others()) return *std::move(told);
  Outcome outcome = outcome_of_exit(status_.value_or(ExitStatus{.code = -1}));
  if (!killed_for_.empty()) {
    outcome =
        make_outcome(killed_for_ == "user" ? OutcomeState::Interrupted : OutcomeState::Transient,
                     killed_for_, "killed by ablate");
  } else if (free_bytes(paths_.directory) < kNoSpaceBytes) {
    outcome.detail += cat("; the disk that holds ", paths_.directory.string(), " is full");
  }
  outcome.last_step = progress_.step;
  return outcome;
}

void LiveAttempt::ask_to_stop() {
  write_file_atomic(paths_.stop_file(), "stop\n");
  job_->ask_to_stop();
}

void LiveAttempt::kill(const std::string& cause) {
  if (killed_for_.empty()) killed_for_ = cause;
  job_->kill();
  last_record_ = Clock::now();
}

void LiveAttempt::close() {
  std::error_code ignored;
  std::filesystem::remove(paths_.stop_file(), ignored);
  remove_job_record(paths_);
}

}  // namespace ablate
