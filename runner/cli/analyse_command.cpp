#include <cmath>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "results/number_format.h"
#include "results/sparkline.h"
#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/process.h"
#include "runner/core/run_paths.h"

namespace ablate::cli::analyse_command {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

struct Options {
  std::string run, against;
  std::vector<std::string> data;
  std::string split = "test";
  int samples = 2048;
  bool transplant = false;
};

constexpr std::size_t kPlotWidth = 40;

/// What ablate-train says of one run.
json analyse(const Options& options, const Workspace& workspace, const std::string& run,
             const std::string& donor) {
  ProcessOptions process;
  process.arguments = {workspace.require_train_program().string(),
                       "analyse",
                       RunPaths(workspace.out, run).directory.string(),
                       "--split",
                       options.split,
                       "--samples",
                       cat(options.samples)};
  for (const std::string& root : options.data) {
    process.arguments.insert(process.arguments.end(), {"--data", root});
  }
  if (!donor.empty()) {
    process.arguments.insert(
        process.arguments.end(),
        {"--transplant-from", RunPaths(workspace.out, donor).directory.string()});
  }
  process.die_with_parent = true;
  const CapturedRun answer = run_and_capture(process);
  if (!answer.status.success()) {
    throw Error(cat(process.arguments[0], " analyse: ", answer.status.str(), "\n", answer.errors));
  }
  return json::parse(answer.output);
}

/// A curve over blocks or frequencies, and its numbers; what is missing is marked in the drawing.
std::vector<std::string> curve(const std::string& label, const std::vector<json>& values) {
  std::vector<double> numbers;
  std::vector<std::string> row{label, ""};
  for (const json& value : values) {
    numbers.push_back(value.is_null() ? std::nan("") : value.get<double>());
    row.push_back(value.is_null() ? "–" : format_fixed(numbers.back(), 1));
  }
  row[1] = sparkline(numbers, kPlotWidth);
  return row;
}

std::vector<json> column(const json& list, const char* key) {
  std::vector<json> values;
  for (const json& entry : list) values.push_back(entry.at(key));
  return values;
}

void print(const std::string& title, const Rows& rows, TerminalStyle style) {
  std::cout << "\n" << styled(style, "1", title) << "\n";
  std::vector<Align> alignment(rows[0].size(), Align::Right);
  for (std::size_t i = 0; i < 2 && i < alignment.size(); ++i) alignment[i] = Align::Left;
  for (const std::string& line : grid_lines(rows, alignment)) std::cout << "  " << line << "\n";
}

struct Subject {
  std::string name;
  json report;
};

void print_entropies(const std::vector<Subject>& subjects, TerminalStyle style) {
  Rows rows{{"block", ""}};
  for (std::size_t i = 0; i < subjects[0].report.at("entropy").size(); ++i) {
    rows[0].push_back(cat(i));
  }
  const std::pair<const char*, const char*> places[] = {
      {"attn", "attention"}, {"mlp", "MLP"}, {"mixed", "behind attention"}, {"out", "behind MLP"}};
  for (const Subject& subject : subjects) {
    for (const auto& [key, label] : places) {
      rows.push_back(
          curve(cat(subject.name, ": ", label), column(subject.report.at("entropy"), key)));
    }
  }
  print("entropy, sum of ln σ over channels (nat)", rows, style);
}

void print_spectra(const std::vector<Subject>& subjects, TerminalStyle style) {
  Rows rows;
  for (const Subject& subject : subjects) {
    const json& points = subject.report.at("spectrum");
    if (points.empty()) {
      rows.push_back({subject.name, "tokens are no grid any more"});
      continue;
    }
    if (rows.empty()) {
      rows.push_back({"radius (π)", ""});
      for (const json& radius : column(points, "radius")) {
        rows[0].push_back(format_fixed(radius.get<double>(), 2));
      }
    }
    rows.push_back(curve(subject.name, column(points, "log_amplitude")));
  }
  print("spectrum behind the last block, ln amplitude", rows, style);
}

void print_transplant(const Subject& subject, const std::string& donor, TerminalStyle style) {
  if (!subject.report.contains("transplant")) return;
  const json& transplant = subject.report.at("transplant");
  Rows rows{{"block", ""}};
  const auto values = transplant.at("blocks").get<std::vector<json>>();
  for (std::size_t i = 0; i < values.size(); ++i) rows[0].push_back(cat(i));
  rows.push_back(curve(cat("with that block of ", donor), values));
  print(cat(transplant.at("metric").get<std::string>(), " of ", subject.name, " (",
            transplant.at("unit").get<std::string>(),
            "); its own: ", format_fixed(transplant.at("own").get<double>(), 1)),
        rows, style);
}

int run(const Options& options, const GlobalOptions& globals) {
  if (options.transplant && options.against.empty()) {
    throw SpecError("analyse --transplant: takes blocks of the run of --against; name one");
  }
  const Workspace workspace = globals.workspace();
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  const std::string own = find_run(*store, options.run);
  const std::string other = options.against.empty() ? "" : find_run(*store, options.against);
  const auto name = [&](const std::string& id) { return run_name(describe_run(*store, id).run); };
  std::vector<Subject> subjects{
      {name(own), analyse(options, workspace, own, options.transplant ? other : "")}};
  if (!other.empty()) subjects.push_back({name(other), analyse(options, workspace, other, "")});
  std::cout << subjects[0].report.at("n") << " images of " << options.split << "\n";
  print_entropies(subjects, globals.style(1));
  print_spectra(subjects, globals.style(1));
  print_transplant(subjects[0], other.empty() ? "" : name(other), globals.style(1));
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  add_run_argument(app, options->run);
  app.add_option("--against", options->against, "Another run, shown beside it")->type_name("RUN");
  app.add_flag("--transplant", options->transplant,
               "Also put each block of that run into this one, without tuning, and evaluate");
  app.add_option("--data", options->data, "NAME=DIR of the data set, repeatable");
  app.add_option("--split", options->split, "test, holdout or train (without augmentation)")
      ->check(CLI::IsMember({"test", "holdout", "train"}))
      ->capture_default_str();
  app.add_option("--samples", options->samples, "Images to look at")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "analyse",
    .position = 17,
    .summary = "Features of a finished run: entropy by block, spectrum, blocks of another run",
    .examples =
        "  ablate analyse \"NOSE 5/12 seed 0\" --against \"dense seed 0\" --data cifar100=DIR\n"
        "  ablate analyse 3f2a --against 77b1 --transplant\n"
        "Entropies take each token of each image as a sample; rows are branches and the\n"
        "stream behind them, columns blocks.\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::analyse_command
