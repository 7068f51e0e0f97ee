#include <csignal>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "sweeps/executor.h"
#include "sweeps/job_record.h"

namespace ablate {
namespace {

using nlohmann::json;

/// A predecessor's job that must go gets this long after TERM.
constexpr double kAdoptedGraceSeconds = 2;

json handle_of(const ProcessId& process) {
  return {{"executor", "mpirun"},
          {"host", host_name()},
          {"pid", process.pid},
          {"start_time", process.start_time}};
}

class StartedJob : public Job {
 public:
  StartedJob(const ProcessOptions& options, bool launched) : child_(options), launched_(launched) {
    // The child may have ended already; then no later process can be mistaken for it either.
    identity_ = process_id(child_.pid()).value_or(ProcessId{child_.pid(), 0});
  }

  std::optional<ExitStatus> poll() override {
    const auto status = child_.poll();
    // mpirun exits with 1 when a rank did, but also when it is ended by a signal itself.
    const bool ambiguous = launched_ && status && status->code == 1;
    return ambiguous ? ExitStatus{.code = -1} : status;
  }
  void kill() override { child_.signal_group(SIGKILL); }
  json handle() const override { return handle_of(identity_); }

 private:
  ChildProcess child_;
  bool launched_;  // by mpirun
  ProcessId identity_;
};

class AdoptedJob : public Job {
 public:
  explicit AdoptedJob(const ProcessId& identity) : identity_(identity) {}

  std::optional<ExitStatus> poll() override {
    if (is_running(identity_)) return std::nullopt;
    return ExitStatus{.code = -1};
  }
  void kill() override { end_process(identity_, kAdoptedGraceSeconds); }
  json handle() const override { return handle_of(identity_); }

 private:
  ProcessId identity_;
};

class LocalExecutor : public Executor {
 public:
  LocalExecutor(Launch launch, Workspace workspace)
      : launch_(std::move(launch)), workspace_(std::move(workspace)) {}

  std::unique_ptr<Job> start(const JobRequest& request) override {
    return std::make_unique<StartedJob>(local_command(request, launch_, workspace_),
                                        launch_.ranks > 1);
  }

  std::unique_ptr<Job> adopt(const json& handle) override {
    if (handle.value("host", "") != host_name()) return nullptr;
    const ProcessId identity{handle.value("pid", pid_t{0}),
                             handle.value("start_time", std::uint64_t{0})};
    return is_running(identity) ? std::make_unique<AdoptedJob>(identity) : nullptr;
  }

  std::vector<int> cpus() const override { return available_cpus(); }

 private:
  Launch launch_;
  Workspace workspace_;
};

std::vector<std::string> train_arguments(const JobRequest& request, const Launch& launch,
                                         const Workspace& workspace) {
  const RunPaths paths(workspace.out, request.run_id);
  std::vector<std::string> arguments = {workspace.require_train_program().string(), "run",
                                        paths.spec().string()};
  const auto add = [&](const char* option, const auto& value) {
    arguments.push_back(option);
    arguments.push_back(cat(value));
  };
  add("--out", workspace.out.string());
  for (std::string& argument : workspace.data_arguments()) {
    arguments.push_back(std::move(argument));
  }
  add("--attempt", request.attempt);
  add("--fence", request.fence);
  add("--threads", launch.threads);
  add("--micro-batch", launch.micro_batch);
  add("--loader-threads", launch.loader_threads);
  if (launch.device != "auto") add("--device", launch.device);
  if (!request.init_file.empty()) add("--init", request.init_file.string());
  add("--checkpoint-every", launch.checkpoint_every);
  add("--checkpoint-steps", launch.checkpoint_steps);
  add("--keep-checkpoints", launch.keep_checkpoints);
  add("--stop-file", paths.stop_file().string());
  return arguments;
}

std::vector<std::string> mpirun_arguments(const Launch& launch) {
  // Ranks inherit the affinity that we gave mpirun, and more ranks than cores are allowed.
  return {"mpirun", "-n", cat(launch.ranks), "--bind-to", "none", "--map-by", "slot:OVERSUBSCRIBE"};
}

}  // namespace

ProcessOptions local_command(const JobRequest& request, const Launch& launch,
                             const Workspace& workspace) {
  ProcessOptions options;
  if (launch.ranks > 1) options.arguments = mpirun_arguments(launch);
  for (std::string& argument : train_arguments(request, launch, workspace)) {
    options.arguments.push_back(std::move(argument));
  }
  const std::size_t cores = request.cpus.empty() ? available_cpus().size() : request.cpus.size();
  options.environment = {{"OMP_NUM_THREADS", cat(launch.threads)},
                         {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  if (static_cast<std::size_t>(launch.ranks) > cores) {
    // Ranks that spin in MPI would take the cores from those that work.
    options.environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  options.cpus = request.cpus;
  const RunPaths paths(workspace.out, request.run_id);
  options.output_file = paths.log(request.attempt);
  options.error_file = options.output_file;
  return options;
}

std::unique_ptr<Executor> make_local_executor(const Launch& launch, const Workspace& workspace) {
  return std::make_unique<LocalExecutor>(launch, workspace);
}

std::vector<std::vector<int>> divide_cpus(const std::vector<int>& cpus, int jobs) {
  const auto count = static_cast<std::size_t>(jobs);
  if (jobs == 1 || cpus.empty()) return std::vector<std::vector<int>>(count);
  if (count > cpus.size()) {
    throw SpecError(cat("jobs = ", jobs, ", but this machine lets us use ", cpus.size(),
                        " cores; concurrent runs need disjoint ones: accepted: 1 to ",
                        cpus.size()));
  }
  std::vector<std::vector<int>> parts(count);
  for (std::size_t part = 0, next = 0; part < count; ++part) {
    const std::size_t end = (part + 1) * cpus.size() / count;
    while (next < end) parts[part].push_back(cpus[next++]);
  }
  return parts;
}

}  // namespace ablate
