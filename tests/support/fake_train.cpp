// A stand-in for ablate-train without LibTorch: resolves drafts trivially and writes true spools,
// with outcomes scripted in the spec, so that scheduling, retries, resuming, stopping and killing
// are tested without training anything.
//
//   model = { name = "fake", script = ["crash@3", "done"], steps = 10, step_ms = 1 }
//
// The n-th attempt follows the n-th entry of `script` (the last one repeats): "done", or at step K
// "crash@K" (killed, no outcome), "transient@K", "fail@K", "diverge@K", "hang@K" (silence for
// ever). `by_seed` gives such a list for every seed instead, as one text with blanks, so that runs
// of one shape end differently. Every step is a checkpoint, so a later attempt goes on where the
// former stopped. A fault of a drill comes before everything else.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <thread>

#include <nlohmann/json.hpp>
#include <signal.h>
#include <unistd.h>

#include "results/spool_writer.h"
#include "runner/core/drill_fault.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/process.h"
#include "runner/core/run_paths.h"
#include "runner/core/run_spec.h"
#include "runner/core/stop.h"
#include "tests/support/fake_answers.h"
#include "tests/support/fake_resolve.h"

namespace ablate {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// ---- resolve ----

int resolve() {
  if (const char* counter = std::getenv("FAKE_TRAIN_RESOLVES")) {
    std::ofstream(counter, std::ios::app) << "resolve\n";
  }
  const json request = json::parse(std::cin);
  std::vector<RunSpec> specs;
  json runs = json::array();
  for (const json& draft : request.at("drafts")) {
    specs.emplace_back();
    try {
      specs.back() = test::fake_resolved_spec(draft, specs);
      runs.push_back(test::fake_resolution(specs.back()));
    } catch (const SpecError& error) {
      runs.push_back({{"error", error.what()}});
    }
  }
  std::cout << json{{"runs", runs}} << "\n";
  return 0;
}

// ---- run ----

struct Script {
  std::string what = "done";
  std::int64_t step = -1;
};

/// The entries for the attempts of a run.
std::vector<std::string> script_entries(const RunSpec& spec) {
  std::vector<std::string> entries;
  if (const Value* by_seed = spec.model.params.find("by_seed")) {
    return split(by_seed->as_array().at(spec.seed).as_string(), ' ');
  }
  if (const Value* list = spec.model.params.find("script")) {
    for (const Value& entry : list->as_array()) entries.push_back(entry.as_string());
  }
  return entries;
}

/// A planned fault in the words of a script.
Script script_of(const DrillFault& fault) {
  static const std::map<DrillKind, const char*> kWords = {{DrillKind::Kill, "crash"},
                                                          {DrillKind::Hang, "hang"},
                                                          {DrillKind::OutOfMemory, "transient"},
                                                          {DrillKind::Nan, "diverge"},
                                                          {DrillKind::FullDisk, "full"},
                                                          {DrillKind::Term, "term"},
                                                          {DrillKind::Usr1, "usr1"},
                                                          {DrillKind::Slow, "slow"}};
  return {kWords.at(fault.kind), fault.step + 1};
}

Script script_of(const RunSpec& spec, int attempt, const std::optional<DrillFault>& fault) {
  if (fault && fault->run == spec.id() && fault->attempt == attempt) return script_of(*fault);
  const std::vector<std::string> entries = script_entries(spec);
  if (entries.empty()) return {};
  const auto index = std::min(entries.size(), static_cast<std::size_t>(attempt)) - 1;
  const auto parts = split(entries[index], '@');
  return {parts[0], parts.size() > 1 ? std::stoll(parts[1]) : -1};
}

struct Attempt {
  RunSpec spec;
  RunPaths paths;
  fs::path stop_file;
  std::string fence;
  int number = 1;
  int rank = 0;
  std::size_t in_process = 1;
  std::optional<std::chrono::steady_clock::time_point> deadline{};
  std::optional<DrillFault> fault{};
};

std::int64_t newest_checkpoint(const RunPaths& paths) {
  const fs::path file = paths.checkpoints() / "newest";
  return fs::exists(file) ? std::stoll(read_file(file)) : 0;
}

void save_checkpoint(const Attempt& attempt, SpoolWriter& spool, std::int64_t step) {
  if (read_file(attempt.paths.fence()) != attempt.fence)
    throw Error("fenced off by a later attempt");
  spool.flush();
  make_directories(attempt.paths.checkpoints());
  write_file_atomic(attempt.paths.checkpoints() / "newest", cat(step));
}

Outcome outcome_of(OutcomeState state, const char* cause, std::int64_t step, ExitCode code) {
  Outcome outcome;
  outcome.state = state;
  outcome.cause = cause;
  outcome.detail = cat("scripted ", cause);
  outcome.last_step = step;
  outcome.images_seen = step * 8;
  outcome.exit_code = static_cast<int>(code);
  return outcome;
}

/// What the script wants at this step; kills or hangs by itself.
std::optional<Outcome> act(const Script& script, std::int64_t step, SpoolWriter& spool) {
  if (script.what == "slow" && step >= script.step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return std::nullopt;
  }
  if (script.step != step) return std::nullopt;
  if (script.what == "term" || script.what == "usr1") {
    ::raise(script.what == "term" ? SIGTERM : SIGUSR1);
    return std::nullopt;
  }
  if (script.what == "full") {
    return outcome_of(OutcomeState::Transient, "node", step, ExitCode::Transient);
  }
  if (script.what == "crash") {
    spool.flush();
    ::kill(::getpid(), SIGKILL);
  }
  if (script.what == "hang") {
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  if (script.what == "transient") {
    return outcome_of(OutcomeState::Transient, "oom", step, ExitCode::Transient);
  }
  if (script.what == "fail") return outcome_of(OutcomeState::Failed, "bug", step, ExitCode::Failed);
  return outcome_of(OutcomeState::Diverged, "nan", step, ExitCode::Diverged);
}

Outcome train(const Attempt& attempt, SpoolWriter& spool, std::int64_t first) {
  const auto loss = spool.metric("train/loss", "nat", Better::Lower);
  const auto step_s = spool.metric("time/step_s", "s", Better::Lower, MetricKind::Timing);
  const auto top1 = spool.metric("eval/top1", "%", Better::Higher);
  const Script script = script_of(attempt.spec, attempt.number, attempt.fault);
  const std::int64_t steps = test::fake_setting(attempt.spec, "steps", 10);
  const auto pause = std::chrono::milliseconds(test::fake_setting(attempt.spec, "step_ms", 0));
  StopSignal stop({.stop_file = attempt.stop_file, .deadline = {}, .file_interval = {}});
  for (std::int64_t step = first + 1; step <= steps; ++step) {
    if (auto outcome = act(script, step, spool)) return *outcome;
    std::this_thread::sleep_for(pause);
    spool.log(step_s, step, static_cast<double>(pause.count()) / 1000);
    spool.log(loss, step, 1.0 / static_cast<double>(step));
    spool.log(top1, step, 50.0 + static_cast<double>(step));
    save_checkpoint(attempt, spool, step);
    if (stop.requested()) {
      return outcome_of(OutcomeState::Interrupted, "user", step, ExitCode::Interrupted);
    }
    if (attempt.deadline && std::chrono::steady_clock::now() >= *attempt.deadline) {
      return outcome_of(OutcomeState::Interrupted, "walltime", step, ExitCode::Interrupted);
    }
  }
  return outcome_of(OutcomeState::Done, "finished", steps, ExitCode::Done);
}

void finish(const Attempt& attempt, SpoolWriter& spool, const Outcome& outcome) {
  const double accuracy = static_cast<double>(test::fake_setting(attempt.spec, "top1", 70)) +
                          0.1 * static_cast<double>(attempt.spec.seed);
  spool.final_value(spool.metric("top1", "%", Better::Higher), outcome.last_step, accuracy);
  spool.final_value(spool.metric("params_m", "M", Better::Lower), outcome.last_step, 1.0);
  spool.final_value(spool.metric("gmacs", "G", Better::Lower), outcome.last_step, 2.0);
  make_directories(attempt.paths.final_directory());
  write_file_atomic(attempt.paths.final_weights(), "weights");
  const std::string hash = hash128_hex(attempt.spec.config_json().dump());
  const std::string structure = json{{"structure_hash", hash}}.dump();
  write_file_atomic(attempt.paths.final_structure(), structure);
  spool.event(outcome.last_step, "finalized", structure);
  fs::remove_all(attempt.paths.checkpoints());
}

int run_rank(const Attempt& attempt) {
  SpoolHeader header;
  header.run_uid = attempt.spec.id();
  header.attempt = attempt.number;
  header.rank = attempt.rank;
  header.first_step = newest_checkpoint(attempt.paths) + 1;
  SpoolWriter spool(attempt.paths.spool(attempt.number, attempt.rank), header);
  std::cout << "fake training of " << attempt.spec.id() << std::endl;
  spool.facts(
      FactKind::Environment,
      json{{"world_size", 1}, {"threads", 1}, {"runs_in_process", attempt.in_process}}.dump());
  json machine = {{"hostname", "fake"}, {"cores", 2}};
  if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) machine["gpu_uuid"] = gpus;
  spool.facts(FactKind::Machine, machine.dump());
  const Outcome outcome = train(attempt, spool, header.first_step - 1);
  if (outcome.state == OutcomeState::Done) finish(attempt, spool, outcome);
  spool.outcome(outcome);
  spool.close();
  return outcome.exit_code;
}

/// Everything that follows an option, in order.
std::vector<std::string> values_of(const std::vector<std::string>& arguments,
                                   const std::string& option) {
  std::vector<std::string> values;
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] == option) values.push_back(arguments[i + 1]);
  }
  return values;
}

/// Several specs: each is a thread, as in the true program. Ranks above 0 only keep company: they
/// write no spool and leave with rank 0's outcome unknown.
int run(const std::vector<std::string>& arguments) {
  die_with_parent(SIGKILL);
  const auto attempts = values_of(arguments, "--attempt"), fences = values_of(arguments, "--fence");
  const std::string out = values_of(arguments, "--out").at(0);
  std::vector<Attempt> runs;
  for (const std::string& argument : arguments) {
    if (argument.starts_with("--")) break;
    const RunSpec spec = RunSpec::from_json(json::parse(read_file(argument)));
    const RunPaths paths(out, spec.id());
    const std::size_t i = runs.size();
    runs.push_back({spec, paths, paths.stop_file(), fences.at(i), std::stoi(attempts.at(i))});
  }
  if (const char* rank = std::getenv("OMPI_COMM_WORLD_RANK"); rank && std::stoi(rank) > 0) return 0;
  for (Attempt& attempt : runs) attempt.in_process = runs.size();
  for (const std::string& seconds : values_of(arguments, "--deadline")) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::stoi(seconds));
    for (Attempt& attempt : runs) attempt.deadline = end;
  }
  for (const std::string& file : values_of(arguments, "--drill")) {
    for (Attempt& attempt : runs) attempt.fault = read_drill_fault(file);
  }
  std::vector<int> codes(runs.size());
  {
    const StopHandlers handlers;  // Slurm signals every process of a job
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      threads.emplace_back([&, i] { codes[i] = run_rank(runs[i]); });
    }
  }
  return *std::max_element(codes.begin(), codes.end());
}

// ---- devices ----

/// As many devices as $FAKE_TRAIN_GPUS says.
int devices() {
  const char* count = std::getenv("FAKE_TRAIN_GPUS");
  json list = json::array();
  for (int i = 0; count != nullptr && i < std::stoi(count); ++i) {
    list.push_back(
        {{"index", i}, {"uuid", cat("GPU-", i)}, {"name", "Fake"}, {"total_bytes", 1 << 30}});
  }
  std::cout << json{{"devices", list}, {"why_none", "none is faked"}} << "\n";
  return 0;
}

// ---- bench ----

int bench(const std::vector<std::string>& arguments) {
  const auto option = [&](const std::string& name) {
    const auto found = std::find(arguments.begin(), arguments.end(), name);
    return found == arguments.end() ? std::string() : *(found + 1);
  };
  SpoolWriter spool(option("--out-spool"),
                    {.run_uid = option("--run"), .attempt = std::stoi(option("--attempt"))});
  double images_per_s = 100;
  for (const char* name : {"--structure", "--against"}) {
    if (option(name).empty()) continue;
    const json structure = json::parse(read_file(option(name)));
    spool.bench({json{
        {"structure_hash", structure.at("structure_hash")},
        {"protocol", option("--protocol") + "-" + option("--dtype") + "-b" + option("--batch")},
        {"images_per_s", images_per_s},
        {"device", option("--device")}}
                     .dump()});
    images_per_s = 50;
  }
  spool.outcome({});
  spool.close();
  return 0;
}

int say(const json& answer) {
  std::cout << answer << "\n";
  return 0;
}

int dispatch(const std::vector<std::string>& arguments) {
  const std::string verb = arguments.empty() ? "" : arguments[0];
  if (verb == "resolve") return resolve();
  if (verb == "run") return run({arguments.begin() + 1, arguments.end()});
  if (verb == "bench") return bench(arguments);
  if (verb == "analyse") return say(test::fake_analysis(arguments));
  if (verb == "devices") return devices();
  if (verb == "describe") return say(test::fake_description());
  std::cerr << "fake_train: unknown verb " << verb << "\n";
  return 2;
}

}  // namespace
}  // namespace ablate

int main(int argc, char** argv) {
  try {
    return ablate::dispatch({argv + 1, argv + argc});
  } catch (const ablate::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
