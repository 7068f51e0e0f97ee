#include <nlohmann/json.hpp>

#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "sweeps/executor.h"
#include "sweeps/slurm_agent.h"
#include "sweeps/train_command.h"

namespace ablate {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kLookAtFilesEvery{250};
constexpr std::size_t kMostLive = 10'000;  // what more than `jobs` does is wait in Slurm's queue
/// Until another machine's files are seen for certain: attributes are cached for a minute.
constexpr double kSettleLocal = 2, kSettleNetwork = 75;

/// One run of an element; those of a pack share the seat.
class SlurmJob : public Job {
 public:
  SlurmJob(std::shared_ptr<SlurmAgent> agent, std::shared_ptr<const SlurmAgent::Seat> seat,
           bool launched, std::size_t runs)
      : agent_(std::move(agent)), seat_(std::move(seat)), launched_(launched), runs_(runs) {}

  std::optional<ExitStatus> poll() override {
    look();
    if (!view_.code) return std::nullopt;
    // Stopped, and not by us: whether the job was cancelled or is to go on, the queue tells.
    const bool interrupted = *view_.code == static_cast<int>(kInterrupted);
    if (interrupted && !asked_ && !view_.judged) return std::nullopt;
    // The status of a process of several runs may come from any of them, and that of mpirun or srun
    // with a 1 from themselves. Who was cancelled while it waited is to go on where it stood.
    if (!view_.started && (view_.withdrawn || asked_))
      return ExitStatus{.code = static_cast<int>(kInterrupted)};
    const bool ambiguous = runs_ > 1 || (launched_ && *view_.code == 1);
    return ExitStatus{.code = ambiguous ? -1 : *view_.code};
  }
  void kill() override { agent_->cancel(*seat_); }
  void ask_to_stop() override {
    asked_ = true;
    look();
    if (!view_.started) agent_->cancel(*seat_);
  }
  bool is_shared() const override { return seat_.use_count() > 1; }
  bool is_waiting() const override { return !view_.started; }
  bool is_suspended() const override { return view_.suspended; }
  std::string queue_name() const override { return agent_->name_of(*seat_); }
  bool is_withdrawn() const override { return view_.withdrawn; }
  json handle() const override {
    return {{"executor", "slurm"},
            {"array", seat_->array},
            {"element", seat_->element},
            {"ticket", seat_->ticket}};
  }

 private:
  static constexpr ExitCode kInterrupted = ExitCode::Interrupted;

  void look() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_look_ || (view_.code && view_.judged)) return;
    next_look_ = now + kLookAtFilesEvery;
    view_ = agent_->look(*seat_);
  }

  std::shared_ptr<SlurmAgent> agent_;
  std::shared_ptr<const SlurmAgent::Seat> seat_;
  bool launched_;  // by srun or mpirun
  std::size_t runs_;
  SlurmAgent::View view_;
  bool asked_ = false;  // to stop, by us
  std::chrono::steady_clock::time_point next_look_;
};

SlurmAgent::Options agent_options(const Launch& launch, const Workspace& workspace) {
  const bool local = file_system_kind(workspace.out) == FileSystemKind::Local;
  return {.submission = slurm_resources(launch.slurm, launch.ranks, launch.threads),
          .at_a_time = launch.jobs,
          .grace = launch.slurm.grace,
          .look_every = launch.slurm.look_every,
          .settle = local ? kSettleLocal : kSettleNetwork};
}

class SlurmExecutor : public Executor {
 public:
  SlurmExecutor(const Launch& launch, const Workspace& workspace)
      : launch_(launch),
        workspace_(workspace),
        agent_(std::make_shared<SlurmAgent>(slurm_folder(workspace.out),
                                            agent_options(launch, workspace))) {}

  void expect(const std::vector<std::string>& run_ids) override { agent_->expect(run_ids); }

  std::vector<std::unique_ptr<Job>> start(const std::vector<JobRequest>& requests,
                                          const Place&) override {
    share_log(requests, workspace_);
    const auto seat = std::make_shared<const SlurmAgent::Seat>(
        agent_->send(requests[0].run_id, slurm_ticket(requests, launch_, workspace_)));
    std::vector<std::unique_ptr<Job>> jobs;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      jobs.push_back(std::make_unique<SlurmJob>(agent_, seat, launch_.ranks > 1, requests.size()));
    }
    return jobs;
  }

  std::unique_ptr<Job> adopt(const json& handle) override {
    if (handle.value("executor", "") != "slurm") return nullptr;
    const auto seat = std::make_shared<const SlurmAgent::Seat>(
        SlurmAgent::Seat{handle.value("array", ""), handle.value("element", -1),
                         handle.value("ticket", std::int64_t{0})});
    if (!agent_->take_up(*seat)) return nullptr;
    return std::make_unique<SlurmJob>(agent_, seat, launch_.ranks > 1, 1);
  }

  std::vector<Place> places() const override { return std::vector<Place>(kMostLive); }
  std::size_t at_a_time(std::size_t) const override {
    return static_cast<std::size_t>(launch_.jobs);
  }
  std::vector<std::string> take_notes() override { return agent_->take_notes(); }

 private:
  Launch launch_;
  Workspace workspace_;
  std::shared_ptr<SlurmAgent> agent_;
};

}  // namespace

SlurmTicket slurm_ticket(const std::vector<JobRequest>& requests, const Launch& launch,
                         const Workspace& workspace) {
  const SlurmSettings& slurm = launch.slurm;
  SlurmTicket ticket;
  ticket.number = requests.at(0).fence;
  ticket.ranks = launch.ranks;
  ticket.threads = launch.threads;
  ticket.launcher = slurm.launcher;
  ticket.setup = slurm.setup;
  ticket.limit = slurm_seconds(slurm.time).value_or(0);
  ticket.grace = slurm.grace;
  ticket.command =
      train_arguments(requests, slurm.gpus > 0 ? launch.device : "cpu", launch, workspace);
  ticket.hello = {workspace.require_train_program().string(), "hello"};
  for (const JobRequest& request : requests) {
    ticket.stop_files.push_back(RunPaths(workspace.out, request.run_id).stop_file());
  }
  ticket.log = RunPaths(workspace.out, requests[0].run_id).log(requests[0].attempt);
  return ticket;
}

std::unique_ptr<Executor> make_slurm_executor(const Launch& launch, const Workspace& workspace) {
  try {
    SlurmClient().version();
  } catch (const Error& error) {
    throw Error(cat("launch.executor = \"slurm\", but Slurm's commands are not here (",
                    error.what(),
                    "): start this on a login node, or set launch.executor = \"mpirun\""));
  }
  return std::make_unique<SlurmExecutor>(launch, workspace);
}

std::unique_ptr<Executor> make_executor(const Launch& launch, const Workspace& workspace) {
  return launch.executor == "slurm" ? make_slurm_executor(launch, workspace)
                                    : make_local_executor(launch, workspace);
}

}  // namespace ablate
