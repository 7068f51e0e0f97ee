#include "sweeps/slurm_settings.h"

#include <algorithm>
#include <charconv>

#include "runner/core/error.h"

namespace ablate {
namespace {

SlurmSettings read_slurm(Params& params) {
  SlurmSettings slurm;
  slurm.partition = params.text("partition", "", "partition; empty: the site's default");
  slurm.account = params.text("account", "", "account that is charged");
  slurm.qos = params.text("qos", "", "quality of service");
  slurm.constraint = params.text("constraint", "", "features that a node must have");
  slurm.reservation = params.text("reservation", "", "reservation to run in");
  slurm.memory = params.text("memory", "", "memory of a node for a run, such as 16G");
  slurm.time = params.text("time", "", "time limit of one job; a longer run goes on in the next");
  slurm.nodes = static_cast<int>(
      params.integer("nodes", slurm.nodes, 1, 65'536, "nodes that share the ranks of a run"));
  slurm.gpus = static_cast<int>(
      params.integer("gpus", slurm.gpus, 0, 64, "GPUs of a run on each node; 0: it runs on CPUs"));
  slurm.cpus_per_rank = static_cast<int>(params.integer(
      "cpus_per_rank", slurm.cpus_per_rank, 0, 4096, "cores of a rank; 0: as many as its threads"));
  slurm.grace = static_cast<int>(params.integer(
      "grace", slurm.grace, 1, 65'535, "seconds before the end of a job at which its run stops"));
  slurm.launcher = params.choice("launcher", slurm.launcher, {"auto", "srun", "mpirun", "own"},
                                 "who starts the ranks inside a job; own: srun without MPI");
  slurm.setup = params.text("setup", "", "shell line before the ranks, such as \"module load x\"");
  slurm.look_every = params.number("look_every", slurm.look_every, 0.1, 3600,
                                   "seconds between two questions to Slurm's controller");
  if (const Value* list = params.raw("options", "list of further options of sbatch, as they are")) {
    for (const Value& option : list->as_array()) slurm.options.push_back(option.as_string());
  }
  if (!slurm.time.empty() && !slurm_seconds(slurm.time)) {
    params.fail("time", cat("\"", slurm.time,
                            "\" is no time of Slurm's; accepted: \"MIN\", \"MIN:SEC\", "
                            "\"H:MIN:SEC\", \"D-H\", \"D-H:MIN\", \"D-H:MIN:SEC\""));
  }
  return slurm;
}

std::optional<std::int64_t> number_of(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

SlurmSettings parse_slurm(const Value& table) {
  Params params(table, "launch.slurm");
  SlurmSettings slurm = read_slurm(params);
  params.finish();
  return slurm;
}

std::vector<ParamHelp> slurm_settings() {
  const Value nothing;
  Params params(nothing, "launch.slurm");
  read_slurm(params);
  return params.help();
}

std::optional<std::int64_t> slurm_seconds(std::string_view text) {
  constexpr std::int64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  const std::size_t dash = text.find('-');
  const bool with_days = dash != std::string_view::npos;
  const auto days = with_days ? number_of(text.substr(0, dash)) : std::optional<std::int64_t>(0);
  std::vector<std::int64_t> numbers;
  for (const std::string& part : split(with_days ? text.substr(dash + 1) : text, ':')) {
    const auto number = number_of(part);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  if (!days || numbers.size() > 3) return std::nullopt;
  // Without days a number alone is minutes and two are minutes and seconds; with days the first one
  // is hours.
  std::vector<std::int64_t> units = {kHour, kMinute, 1};
  if (!with_days && numbers.size() < 3) units = {kMinute, 1};
  std::int64_t seconds = *days * kDay;
  for (std::size_t i = 0; i < numbers.size(); ++i) seconds += numbers[i] * units[i];
  return seconds;
}

std::vector<std::string> slurm_resources(const SlurmSettings& settings, int ranks, int threads) {
  if (ranks % settings.nodes != 0) {
    throw SpecError(cat("launch.ranks = ", ranks,
                        " cannot be spread evenly over launch.slurm.nodes"
                        " = ",
                        settings.nodes, "; accepted: a multiple of the nodes"));
  }
  const int on_a_node = ranks / settings.nodes;
  std::vector<std::string> options = {
      cat("--nodes=", settings.nodes), cat("--ntasks=", ranks),
      cat("--ntasks-per-node=", on_a_node),
      cat("--cpus-per-task=", settings.cpus_per_rank > 0 ? settings.cpus_per_rank : threads)};
  if (settings.gpus > 0) options.push_back(cat("--gres=gpu:", settings.gpus));
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) options.push_back(cat("--", option, "=", value));
  };
  add("time", settings.time);
  add("partition", settings.partition);
  add("account", settings.account);
  add("qos", settings.qos);
  add("constraint", settings.constraint);
  add("reservation", settings.reservation);
  add("mem", settings.memory);
  options.insert(options.end(), settings.options.begin(), settings.options.end());
  return options;
}

}  // namespace ablate
