#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "results/sqlite.h"
#include "runner/cli/command.h"
#include "runner/cli/doctor_slurm.h"
#include "runner/cli/train_info.h"
#include "runner/core/build_info.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "sweeps/gpus.h"

namespace ablate::cli::doctor_command {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kHelloSeconds = 30;
constexpr int kOldestSqlite = 3037000;  // STRICT tables
constexpr double kLittleDisk = 2.0 * (1 << 30);

std::string text_field(const json& object, const char* key) {
  const json value = object.value(key, json(""));
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void check_train(const Workspace& workspace, Findings& findings) {
  if (workspace.train_program.empty()) {
    findings.push_back({Verdict::Bad, "ablate-train", "not found beside ablate",
                        "build it (scripts/setup) or let ABLATE_TRAIN name it"});
    return;
  }
  try {
    const json build = describe_train_program(workspace).value("build", json::object());
    findings.push_back({Verdict::Good, "ablate-train", workspace.train_program.string(), ""});
    findings.push_back({Verdict::Good, "LibTorch", text_field(build, "torch"), ""});
    const std::string fix = "made for CPUs; where nvcc and NCCL are, build again for GPUs";
    const auto feature = [&](const char* what, const char* key, const std::string& found) {
      const bool there = build.value(key, false);
      findings.push_back({there ? Verdict::Good : Verdict::Note, what,
                          there ? found : "not compiled in", there ? "" : fix});
    };
    feature("CUDA kernels", "has_cuda", text_field(build, "cuda"));
    feature("NCCL", "has_nccl", "compiled in");
  } catch (const Error& error) {
    findings.push_back({Verdict::Bad, "ablate-train", error.what(), "build it again"});
  }
}

/// "2 x NVIDIA H100 80GB HBM3", as the driver lists them; empty without any.
std::string gpu_names() {
  std::map<std::string, int> counts;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", none)) {
    std::ifstream in(entry.path() / "information");
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("Model:")) ++counts[line.substr(line.find_last_of('\t') + 1)];
    }
  }
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) parts.push_back(cat(count, " x ", name));
  if (parts.empty() && fs::exists("/dev/nvidia0", none)) parts.emplace_back("NVIDIA device");
  return join(parts);
}

/// The CUDA compiler on the PATH or where its packages put it; empty without one.
std::string find_nvcc() {
  const char* variable = std::getenv("PATH");
  std::vector<std::string> folders = split(variable == nullptr ? "" : variable, ':');
  folders.emplace_back("/usr/local/cuda/bin");
  for (const std::string& folder : folders) {
    std::string file = folder + "/nvcc";
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

/// Devices that runs can use: "2 x NVIDIA H100 80GB HBM3, 79.2 GiB".
std::string usable_gpus(const GpuList& list) {
  std::map<std::string, int> counts;
  for (const Gpu& gpu : list.gpus) {
    ++counts[cat(gpu.name, ", ", human_bytes(static_cast<double>(gpu.bytes)))];
  }
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) parts.push_back(cat(count, " x ", name));
  return join(parts, "; ");
}

/// As ablate-train sees them, which is what counts; without it as the driver lists them.
Finding find_gpu(const Workspace& workspace) {
  const std::string driver = gpu_names();
  std::string why = "ablate-train is not there";
  try {
    const GpuList list = list_gpus(workspace);
    if (!list.gpus.empty()) return {Verdict::Good, "GPU", usable_gpus(list), ""};
    why = list.why_none;
  } catch (const Error& error) {
    if (!workspace.train_program.empty()) why = error.what();
  }
  if (driver.empty()) return {Verdict::Note, "GPU", "no NVIDIA device", "runs use the CPU"};
  return {Verdict::Note, "GPU", cat(driver, ", which runs cannot use: ", why),
          "runs use the CPU; `ablate-train devices` tells more"};
}

void check_gpu(const Workspace& workspace, Findings& findings) {
  const std::string nvcc = find_nvcc();
  findings.push_back(find_gpu(workspace));
  findings.push_back(
      {nvcc.empty() ? Verdict::Note : Verdict::Good, "nvcc", nvcc.empty() ? "not found" : nvcc,
       nvcc.empty() ? "the CUDA part cannot be built here; runs on CPUs need none" : ""});
}

void check_mpirun(Findings& findings) {
  ProcessOptions options;
  options.arguments = {"mpirun",
                       "-n",
                       "2",
                       "--bind-to",
                       "none",
                       "--map-by",
                       "slot:OVERSUBSCRIBE",
                       "sh",
                       "-c",
                       "echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE"};
  options.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  options.die_with_parent = true;
  const std::string fix = "install openmpi-bin, or set launch.ranks = 1";
  try {
    const CapturedRun hello = run_and_capture(options, {}, kHelloSeconds);
    const bool good = hello.status.success() &&
                      hello.output.find("rank 0 of 2") != std::string::npos &&
                      hello.output.find("rank 1 of 2") != std::string::npos;
    findings.push_back({good ? Verdict::Good : Verdict::Bad, "mpirun",
                        good              ? "two ranks answer"
                        : hello.timed_out ? "two ranks did not answer in 30 s"
                                          : "two ranks do not start: " + hello.errors,
                        good ? "" : fix});
  } catch (const Error& error) {
    findings.push_back({Verdict::Bad, "mpirun", error.what(), fix});
  }
}

void check_storage(const Workspace& workspace, Findings& findings) {
  const FileSystemKind kind = file_system_kind(workspace.out);
  const bool local = kind == FileSystemKind::Local;
  findings.push_back(
      {local ? Verdict::Good : Verdict::Note, "output folder",
       cat(workspace.out.string(), " on a ", file_system_name(kind), " file system"),
       local ? "" : "one process at a time uses the database; --db on a local disk is faster"});
  const auto bytes = static_cast<double>(free_bytes(workspace.out));
  findings.push_back({bytes > kLittleDisk ? Verdict::Good : Verdict::Note, "free disk",
                      human_bytes(bytes), bytes > kLittleDisk ? "" : "checkpoints may not fit"});
  fs::path existing = workspace.out;
  while (!fs::exists(existing)) existing = existing.parent_path();
  const bool writable = ::access(existing.c_str(), W_OK) == 0;
  if (!writable) {
    findings.push_back({Verdict::Bad, "output folder", existing.string() + " is not writable",
                        "choose another one by --out"});
  }
}

/// CPUs that a container's quota grants; 0 without one.
double quota_cpus() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::atof(quota.c_str()) / period;
}

void check_cores(Findings& findings) {
  const std::size_t usable = available_cpus().size();
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  std::string found = cat(usable, " usable of ", online);
  std::string fix;
  if (usable < static_cast<std::size_t>(online))
    fix = "an affinity mask (taskset, a batch system) hides the others";
  if (const double quota = quota_cpus(); quota > 0 && quota < static_cast<double>(usable)) {
    found += cat(", quota ", quota);
    fix = "a quota grants fewer CPUs: keep ranks x threads x jobs below it";
  }
  findings.push_back({fix.empty() ? Verdict::Good : Verdict::Note, "cores", found, fix});
}

void check_software(Findings& findings) {
  findings.push_back({Verdict::Good, "ablate", build_info().version_line(), ""});
  const bool fresh = SQLite::getLibVersionNumber() >= kOldestSqlite;
  findings.push_back({fresh ? Verdict::Good : Verdict::Bad, "SQLite", SQLite::getLibVersion(),
                      fresh ? "" : "3.37 or newer is needed"});
}

void check_data(const Workspace& workspace, Findings& findings) {
  for (const auto& [name, folder] : workspace.data) {
    findings.push_back({Verdict::Good, "data set " + name, folder.string(), ""});
  }
}

std::string mark(const TerminalStyle& style, Verdict verdict) {
  if (verdict == Verdict::Good) return styled(style, "32", "ok  ");
  return verdict == Verdict::Note ? styled(style, "33", "note") : styled(style, "31", "BAD ");
}

struct Options {
  bool slurm = false;
  std::vector<std::string> sbatch;
};

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const TerminalStyle style = globals.style(1);
  Findings findings;
  check_software(findings);
  check_train(workspace, findings);
  check_gpu(workspace, findings);
  check_mpirun(findings);
  check_storage(workspace, findings);
  check_cores(findings);
  check_data(workspace, findings);
  if (options.slurm) check_slurm(workspace, options.sbatch, findings);
  std::size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.what.size());
  bool bad = false;
  for (const Finding& finding : findings) {
    std::cout << mark(style, finding.verdict) << "  " << finding.what
              << std::string(width - finding.what.size() + 2, ' ') << finding.found << "\n";
    if (!finding.fix.empty())
      std::cout << std::string(width + 8, ' ') << "-> " << finding.fix << "\n";
    bad = bad || finding.verdict == Verdict::Bad;
  }
  return static_cast<int>(bad ? ExitCode::Failed : ExitCode::Done);
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_flag("--slurm", options->slurm,
               "Submit a job of two ranks, which finds out how Slurm is to start them here");
  app.add_option("--sbatch", options->sbatch,
                 "Option of sbatch for that job, such as --partition=x")
      ->allow_extra_args(false)
      ->type_name("OPTION");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "doctor",
    .position = 15,
    .summary = "Is this machine fit for runs? What is missing, and the fix",
    .examples = "  ablate doctor --out /scratch/out\n"
                "  ablate doctor --slurm --sbatch=--partition=debug --sbatch=--time=5\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::doctor_command
