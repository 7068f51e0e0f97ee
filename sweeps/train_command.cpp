#include "sweeps/train_command.h"

#include <filesystem>
#include <fstream>
#include <set>

#include "runner/core/drill_fault.h"
#include "runner/core/run_paths.h"
#include "runner/core/text.h"

namespace ablate {

std::vector<std::string> train_arguments(const std::vector<JobRequest>& requests,
                                         const std::string& device, const Launch& launch,
                                         const Workspace& workspace) {
  std::vector<std::string> arguments = {workspace.require_train_program().string(), "run"};
  for (const JobRequest& request : requests) {
    arguments.push_back(RunPaths(workspace.out, request.run_id).spec().string());
  }
  const auto add = [&](const char* option, const auto& value) {
    arguments.push_back(option);
    arguments.push_back(cat(value));
  };
  add("--out", workspace.out.string());
  for (std::string& argument : workspace.data_arguments()) {
    arguments.push_back(std::move(argument));
  }
  std::set<std::string> weights;
  for (const JobRequest& request : requests) {
    add("--attempt", request.attempt);
    add("--fence", request.fence);
    for (const auto& file : {request.init_file, request.teacher_file}) {
      if (!file.empty()) weights.insert(file.string());
    }
  }
  for (const std::string& file : weights) add("--init", file);
  add("--threads", launch.threads);
  add("--micro-batch", launch.micro_batch);
  if (launch.loader_threads >= 0) add("--loader-threads", launch.loader_threads);
  add("--device", device);
  if (launch.nccl_nvls) arguments.emplace_back("--nccl-nvls");
  add("--nccl-timeout", launch.nccl_timeout);
  add("--checkpoint-every", launch.checkpoint_every);
  add("--checkpoint-steps", launch.checkpoint_steps);
  add("--keep-checkpoints", launch.keep_checkpoints);
  const std::filesystem::path fault = drill_file(workspace.out);
  if (std::filesystem::exists(fault)) add("--drill", fault.string());
  return arguments;
}

void share_log(const std::vector<JobRequest>& requests, const Workspace& workspace) {
  namespace fs = std::filesystem;
  const auto log_of = [&](const JobRequest& request) {
    return RunPaths(workspace.out, request.run_id).log(request.attempt);
  };
  if (requests.size() < 2) return;
  const fs::path log = log_of(requests[0]);
  std::ofstream(log, std::ios::app) << std::flush;
  for (std::size_t i = 1; i < requests.size(); ++i) {
    std::error_code failed;
    fs::create_hard_link(log, log_of(requests[i]), failed);
    if (failed) std::ofstream(log_of(requests[i])) << "see " << log.string() << "\n";
  }
}

}  // namespace ablate
