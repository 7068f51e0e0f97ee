#include <iostream>
#include <memory>
#include <set>

#include <CLI/CLI.hpp>

#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"

namespace ablate::cli::retry_command {
namespace {

struct Options {
  std::vector<std::string> runs;
  bool failed = false, diverged = false, skipped = false, recompute = false;
  std::string sweep;
  std::string cause;
};

/// How an attempt can have ended that left a run failed or diverged.
const std::vector<std::string> kCauses = {"oom", "nan", "hang", "node", "user", "bug", "killed"};

/// The runs in one of the wanted states, of one sweep or of all.
std::vector<std::string> runs_by_kind(ResultStore& store, const Options& options) {
  std::set<std::string> states;
  if (options.failed || !options.cause.empty()) states.insert("failed");
  if (options.diverged || !options.cause.empty()) states.insert("diverged");
  if (options.skipped) states.insert("skipped");
  std::vector<std::string> runs;
  for (const SweepLine& sweep : list_sweeps(store)) {
    if (!options.sweep.empty() && sweep.name != options.sweep) continue;
    for (const RunLine& line : sweep_runs(store, sweep.name)) {
      const bool cause = options.cause.empty() || line.cause == options.cause;
      if (states.contains(line.state) && cause) runs.push_back(line.run_uid);
    }
  }
  return runs;
}

int run(const Options& options, const GlobalOptions& globals) {
  const auto store = open_store(globals.workspace(), ResultStore::Mode::ReadWrite);
  if (options.runs.empty() && !options.failed && !options.diverged && !options.skipped &&
      options.cause.empty()) {
    throw SpecError("which runs? Name them, or give --failed, --diverged, --skipped or --cause");
  }
  if (options.recompute && options.runs.empty()) {
    throw SpecError("--recompute throws away what is there: name the runs one by one");
  }
  if (!options.sweep.empty()) find_sweep(*store, options.sweep);
  std::vector<std::string> runs = runs_by_kind(*store, options);
  for (const std::string& text : options.runs) runs.push_back(find_run(*store, text));
  std::size_t changed = 0;
  for (const std::string& id : runs) {
    if (store->retry(id) || (options.recompute && store->recompute(id))) {
      ++changed;
      std::cout << short_id(id) << " may start again\n";
    } else if (!options.runs.empty()) {
      std::cout << short_id(id) << " is " << describe_run(*store, id).run.state
                << ", not failed, diverged or skipped: left alone"
                << (options.recompute ? "\n" : "; --recompute takes done ones, too\n");
    }
  }
  std::cout << changed << (changed == 1 ? " run" : " runs")
            << " may start again; `ablate sweep FILE` goes on\n";
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  add_runs_argument(app, options->runs, /*required=*/false);
  app.add_flag("--failed", options->failed, "All failed runs");
  app.add_flag("--diverged", options->diverged, "All diverged runs");
  app.add_flag("--skipped", options->skipped, "All skipped runs");
  app.add_flag("--recompute", options->recompute,
               "Named runs that are done, too: from the beginning, for records that were damaged");
  app.add_option("--cause", options->cause, "All whose last attempt ended by this cause")
      ->check(CLI::IsMember(kCauses));
  app.add_option("--sweep", options->sweep, "Only runs of this sweep")->type_name("SWEEP");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "retry",
    .position = 8,
    .summary = "Allow another attempt at runs that failed, diverged or were skipped",
    .examples = "  ablate retry 3f2a\n"
                "  ablate retry \"NOSE seed 2\"\n"
                "  ablate retry --cause oom --sweep demo\n"
                "  ablate retry --recompute 3f2a\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::retry_command
