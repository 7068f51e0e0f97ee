#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "runner/cli/command.h"
#include "runner/cli/drill.h"
#include "runner/core/error.h"

namespace ablate::cli::drill_command {
namespace {

using nlohmann::json;

struct Options {
  DrillOptions drill;
  bool as_json = false;
};

void print(const DrillResult& result, const TerminalStyle& style) {
  constexpr std::size_t kName = 12;
  const std::string indent(kName + 5, ' ');
  const DrillVerdict& verdict = result.verdict;
  std::cout << (verdict.passed ? styled(style, "32", "ok   ") : styled(style, "31", "FAIL "))
            << result.name << std::string(kName - result.name.size(), ' ') << result.what << ": "
            << verdict.found << " (" << human_duration(result.seconds) << ")\n";
  if (!verdict.passed) {
    std::cout << indent << "-> " << verdict.fix << "\n"
              << indent << "see " << result.folder.string() << "\n";
  }
  std::cout << std::flush;
}

json to_json(const DrillResult& result, bool kept) {
  return {{"name", result.name},
          {"what", result.what},
          {"passed", result.verdict.passed},
          {"found", result.verdict.found},
          {"fix", result.verdict.fix},
          {"seconds", result.seconds},
          {"folder", result.verdict.passed && !kept ? "" : result.folder.string()}};
}

void print_json(const Drill& drill, const DrillOptions& options) {
  json cases = json::array();
  for (const DrillResult& result : drill.results()) cases.push_back(to_json(result, options.keep));
  const json report = {{"executor", options.executor},
                       {"planned", drill.planned()},
                       {"passed", drill.passed()},
                       {"cases", std::move(cases)}};
  std::cout << report.dump(1) << "\n";
}

int run(const Options& options, const GlobalOptions& globals) {
  const TerminalStyle style = globals.style(1);
  const StopHandlers handlers(StopHandlers::SecondInterrupt::Count);
  StopSignal stop;
  std::size_t begun = 0, planned = 0;
  Drill drill(options.drill, globals.workspace(),
              {.begin =
                   [&](std::string_view name, std::string_view what) {
                     std::cerr << "drill " << ++begun << " of " << planned << ": " << name << " ("
                               << what << ")\n";
                   },
               .end =
                   [&](const DrillResult& result) {
                     if (!options.as_json) print(result, style);
                   }});
  planned = drill.planned();
  drill.run(stop);
  if (options.as_json) {
    print_json(drill, options.drill);
  } else {
    std::cout << drill.passed() << " of " << planned << " ended as promised\n";
  }
  if (stop.requested()) return static_cast<int>(ExitCode::Interrupted);
  return static_cast<int>(drill.passed() == planned ? ExitCode::Done : ExitCode::Failed);
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const DrillCase& drill : drill_cases()) names.emplace_back(drill.name);
  return names;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("settings", options->drill.settings,
                 "Settings of the runs that are struck: launch.ranks=4, launch.slurm.partition=x")
      ->type_name("KEY=VALUE");
  app.add_option("--executor", options->drill.executor,
                 "Who starts them: local (this machine) or slurm")
      ->check(CLI::IsMember({"local", "slurm"}))
      ->capture_default_str();
  app.add_option("--only", options->drill.only, "This case alone; repeatable")
      ->check(CLI::IsMember(case_names()))
      ->allow_extra_args(false)
      ->type_name("CASE");
  app.add_option("--patience", options->drill.patience,
                 "Seconds after which a case counts as failed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--keep", options->drill.keep,
               "Keep the folders of cases that ended as promised, too");
  app.add_flag("--json", options->as_json, "One JSON object instead of the report");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "drill",
    .position = 16,
    .summary = "What happens here when a rank dies, hangs, runs out of memory or disk, ...?",
    .examples =
        "  ablate drill --out /scratch/out                       on this machine, a minute or two\n"
        "  ablate drill --executor slurm launch.slurm.partition=debug launch.ranks=4\n"
        "  ablate drill --only kill --only hang launch.stall_timeout=60\n"
        "  ablate drill --json | jq '.cases[] | select(.passed | not)'\n"
        "Strikes tiny runs of its own in a folder below --out, never a run of yours. Each has to\n"
        "end as an undisturbed one does, with its failure named. Exit status 0: all do.\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::drill_command
