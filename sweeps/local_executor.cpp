#include <csignal>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/run_paths.h"
#include "sweeps/executor.h"
#include "sweeps/gpus.h"
#include "sweeps/job_record.h"
#include "sweeps/train_command.h"

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

/// A process that we started. The jobs of several runs own it together.
struct StartedProcess {
  explicit StartedProcess(const ProcessOptions& options) : child(options) {
    // The child may have ended already; then no later process can be mistaken for it either.
    identity = process_id(child.pid()).value_or(ProcessId{child.pid(), 0});
  }
  ChildProcess child;
  ProcessId identity;
};

class StartedJob : public Job {
 public:
  /// `runs` is how many runs began in the process.
  StartedJob(std::shared_ptr<StartedProcess> process, bool launched, std::size_t runs)
      : process_(std::move(process)), launched_(launched), runs_(runs) {}

  std::optional<ExitStatus> poll() override {
    const auto status = process_->child.poll();
    // mpirun exits with 1 when a rank did, but also when it is ended by a signal itself. The status
    // of a process of several runs may come from any of them.
    const bool ambiguous = status && ((launched_ && status->code == 1) || runs_ > 1);
    return ambiguous ? ExitStatus{.code = -1} : status;
  }
  void kill() override { process_->child.signal_group(SIGKILL); }
  bool is_shared() const override { return process_.use_count() > 1; }
  json handle() const override { return handle_of(process_->identity); }

 private:
  std::shared_ptr<StartedProcess> process_;
  bool launched_;  // by mpirun
  std::size_t runs_;
};

class AdoptedJob : public Job {
 public:
  explicit AdoptedJob(const ProcessId& identity) : identity_(identity) {}

  std::optional<ExitStatus> poll() override {
    if (is_running(identity_)) return std::nullopt;
    return ExitStatus{.code = -1};
  }
  void kill() override { end_process(identity_, kAdoptedGraceSeconds); }
  bool is_shared() const override { return false; }
  json handle() const override { return handle_of(identity_); }

 private:
  ProcessId identity_;
};

class LocalExecutor : public Executor {
 public:
  LocalExecutor(Launch launch, Workspace workspace)
      : launch_(std::move(launch)), workspace_(std::move(workspace)) {}

  std::vector<std::unique_ptr<Job>> start(const std::vector<JobRequest>& requests,
                                          const Place& place) override {
    const ProcessOptions command = local_command(requests, place, launch_, workspace_);
    share_log(requests, workspace_);
    const auto process = std::make_shared<StartedProcess>(command);
    std::vector<std::unique_ptr<Job>> jobs;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      jobs.push_back(std::make_unique<StartedJob>(process, launch_.ranks > 1, requests.size()));
    }
    return jobs;
  }

  std::unique_ptr<Job> adopt(const json& handle) override {
    if (handle.value("host", "") != host_name()) return nullptr;
    const ProcessId identity{handle.value("pid", pid_t{0}),
                             handle.value("start_time", std::uint64_t{0})};
    return is_running(identity) ? std::make_unique<AdoptedJob>(identity) : nullptr;
  }

  std::vector<Place> places() const override {
    std::vector<Place> places = gpu_places(find_gpus(launch_.device, workspace_), launch_.ranks);
    const std::vector<int> cpus = available_cpus();
    if (places.empty() && launch_.device == "cuda") {
      throw SpecError(cat("launch.ranks = ", launch_.ranks,
                          ", but a rank has a GPU to itself and there are fewer here; accepted: "
                          "fewer ranks, or launch.device = \"cpu\""));
    }
    if (places.empty()) {
      for (auto& part : divide_cpus(cpus, launch_.jobs))
        places.push_back({.cpus = std::move(part)});
    } else if (places.size() <= cpus.size()) {
      const auto parts = divide_cpus(cpus, static_cast<int>(places.size()));
      for (std::size_t i = 0; i < places.size(); ++i) places[i].cpus = parts[i];
    }
    return places;
  }

 private:
  Launch launch_;
  Workspace workspace_;
};

std::vector<std::string> mpirun_arguments(const Launch& launch) {
  // Ranks inherit the affinity that we gave mpirun, and more ranks than cores are allowed.
  return {"mpirun", "-n", cat(launch.ranks), "--bind-to", "none", "--map-by", "slot:OVERSUBSCRIBE"};
}

}  // namespace

ProcessOptions local_command(const std::vector<JobRequest>& requests, const Place& place,
                             const Launch& launch, const Workspace& workspace) {
  ProcessOptions options;
  if (launch.ranks > 1) options.arguments = mpirun_arguments(launch);
  for (std::string& argument :
       train_arguments(requests, place.gpus.empty() ? "cpu" : launch.device, launch, workspace)) {
    options.arguments.push_back(std::move(argument));
  }
  const std::size_t cores = place.cpus.empty() ? available_cpus().size() : place.cpus.size();
  options.environment = {{"OMP_NUM_THREADS", cat(launch.threads)},
                         {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  if (static_cast<std::size_t>(launch.ranks) > cores) {
    // Ranks that spin in MPI would take the cores from those that work.
    options.environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  if (!place.gpus.empty()) options.environment.emplace_back("CUDA_VISIBLE_DEVICES", place.gpus);
  options.cpus = place.cpus;
  const RunPaths paths(workspace.out, requests.at(0).run_id);
  options.output_file = paths.log(requests[0].attempt);
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
