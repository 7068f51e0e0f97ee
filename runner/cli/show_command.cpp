#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "results/curve.h"
#include "results/item_comparison.h"
#include "results/number_format.h"
#include "results/sparkline.h"
#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/retrieval_view.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/run_paths.h"

namespace ablate::cli::show_command {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

struct Options {
  std::string run, against;
  int log_lines = 10;
  bool all = false;
};

constexpr std::size_t kCurveWidth = 40;
constexpr std::size_t kMostEvents = 20;
constexpr std::size_t kEventWidth = 160;

class Printer {
 public:
  explicit Printer(TerminalStyle style) : style_(style) {}

  void title(const std::string& text) const {
    std::cout << "\n" << styled(style_, "1", text) << "\n";
  }
  void grid(const Rows& rows, const std::vector<Align>& align = {}) const {
    for (const std::string& line : grid_lines(rows, align)) std::cout << "  " << line << "\n";
  }

 private:
  TerminalStyle style_;
};

/// Leaves of the spec under the paths a user writes.
void flatten(const json& node, const std::string& path, Rows& rows) {
  if (node.is_object()) {
    for (const auto& [key, child] : node.items()) {
      const bool transparent = key == "params" || key == "training";
      flatten(child, transparent ? path : path.empty() ? key : cat(path, ".", key), rows);
    }
  } else if (node.is_array() && !node.empty() && node[0].is_object()) {
    for (const json& child : node) {
      const std::string name = child.value("name", child.value("role", "?"));
      flatten(child, cat(path, ".", name), rows);
    }
  } else {
    rows.push_back({path, node.is_string() ? node.get<std::string>() : node.dump()});
  }
}

void print_spec(const Printer& printer, const RunDetail& detail, bool all) {
  printer.title("spec");
  Rows rows, kept;
  flatten(json::parse(detail.config_json), "", rows);
  for (auto& row : rows) {
    const bool noise = row[0].ends_with("semantics") || row[1].empty() || row[1] == "[]";
    if (all || !noise) kept.push_back(std::move(row));
  }
  printer.grid(kept);
}

void print_lineage(const Printer& printer, ResultStore& store, const RunDetail& detail) {
  printer.title("lineage");
  Rows rows;
  for (const auto& method : detail.methods) {
    rows.push_back({"method", method.name, method.inherited ? "from the parent" : "own"});
  }
  const auto relative = [&](const char* kind, const RunDetail::Relative& other) {
    const RunLine line = describe_run(store, other.run_uid).run;
    rows.push_back({kind, short_id(other.run_uid), run_name(line), other.role, other.state,
                    other.weights_sha256.substr(0, 12)});
  };
  for (const auto& parent : detail.parents) relative("parent", parent);
  for (const auto& child : detail.children) relative("child", child);
  if (detail.images_seen) rows.push_back({"images seen", cat(*detail.images_seen)});
  for (const std::string& sweep : detail.sweeps) rows.push_back({"sweep", sweep});
  printer.grid(rows);
}

void print_finals(const Printer& printer, const RunDetail& detail) {
  if (detail.finals.empty()) return;
  printer.title("results");
  Rows rows;
  for (const FinalInfo& info : detail.finals) {
    if (shown_as_retrievals(info.metric)) continue;
    rows.push_back({info.metric, info.value ? cat(*info.value) : "none", info.unit,
                    cat("step ", info.step), info.rule});
  }
  printer.grid(rows, {Align::Left, Align::Right});
}

void print_curves(const Printer& printer, ResultStore& store, const RunDetail& detail) {
  Rows rows;
  for (const SeriesInfo& series : list_series(store, detail.run.run_uid)) {
    if (series.rank > 0 || series.points < 2 || shown_as_retrievals(series.metric)) continue;
    std::vector<double> values;
    for (const CurvePoint& point :
         read_curve(store, detail.run.run_uid, series.metric, series.rank)) {
      values.push_back(point.value);
    }
    rows.push_back({series.metric, sparkline(values, kCurveWidth), series.unit});
  }
  if (rows.empty()) return;
  printer.title("curves");
  printer.grid(rows);
}

void print_retrievals(const Printer& printer, const RunDetail& detail) {
  const RetrievalView view = view_retrievals(detail.events);
  if (view.grid.empty()) return;
  printer.title("retrievals");
  using enum Align;
  printer.grid(view.grid, {Right, Right, Left, Left, Right, Right});
  std::cout << "  " << view.summary << "\n";
  if (view.weights.empty()) return;
  printer.title("mean weights: a line a block, from · to █");
  printer.grid(view.weights, {});
}

void print_attempts(const Printer& printer, const RunDetail& detail) {
  printer.title("attempts");
  Rows rows = {{"n", "outcome", "cause", "steps", "started", "took", "ranks", "threads", "host"}};
  for (const AttemptInfo& attempt : detail.attempts) {
    std::string took;
    if (attempt.start_us && attempt.end_us) {
      took = human_duration(static_cast<double>(*attempt.end_us - *attempt.start_us) * 1e-6);
    }
    const auto number = [](std::optional<std::int64_t> value) {
      return value ? cat(*value) : std::string("?");
    };
    rows.push_back(
        {attempt.n > 0 ? cat(attempt.n) : "bench",
         attempt.outcome.empty() ? "running" : attempt.outcome,
         attempt.detail.empty() ? attempt.cause : cat(attempt.cause, ": ", attempt.detail),
         cat(number(attempt.first_step), "-", number(attempt.last_step)),
         clock_text(attempt.start_us), took, number(attempt.world_size), number(attempt.threads),
         attempt.hosts});
  }
  printer.grid(rows, {Align::Right});
}

/// Of the last attempt, and of those before it where they differ.
void print_environment(const Printer& printer, const RunDetail& detail) {
  std::vector<std::pair<std::string, std::string>> known;
  for (auto attempt = detail.attempts.rbegin(); attempt != detail.attempts.rend(); ++attempt) {
    if (attempt->environment.empty() || attempt->environment == known) continue;
    known = attempt->environment;
    printer.title(attempt->n > 0 ? cat("environment of attempt ", attempt->n)
                                 : "environment of bench jobs");
    Rows rows;
    for (const auto& [name, value] : known) rows.push_back({name, value});
    printer.grid(rows);
  }
}

/// Bodies of events in a line: "mark_retiring block 2; mark_retiring block 3".
std::string brief(const json& node) {
  std::vector<std::string> parts;
  if (node.is_array()) {
    const bool plain = node.empty() || !node[0].is_structured();
    for (const json& child : node) parts.push_back(brief(child));
    return join(parts, plain ? " " : "; ");
  }
  if (!node.is_object()) return node.is_string() ? node.get<std::string>() : node.dump();
  if (node.contains("edit")) parts.push_back(brief(node["edit"]));  // its kind leads
  for (const auto& [key, child] : node.items()) {
    if (key != "edit") parts.push_back(cat(key, child.is_structured() ? ": " : " ", brief(child)));
  }
  return join(parts, node.contains("edit") ? " " : ", ");
}

std::string event_text(const EventInfo& event, bool whole) {
  const json body = json::parse(event.body_json, nullptr, /*allow_exceptions=*/false);
  if (whole || body.is_discarded()) return event.body_json;
  const std::string text = brief(body);
  const std::string shown = clip_text(text, kEventWidth);
  return shown.size() < text.size() ? shown + " …" : shown;
}

void print_events(const Printer& printer, const RunDetail& detail, bool all) {
  Rows rows;
  for (const EventInfo& event : detail.events) {
    if ((event.rank > 0 || shown_as_retrievals(event)) && !all) continue;
    if (!all && rows.size() == kMostEvents) {
      rows.push_back({"", "", "more with --all"});
      break;
    }
    rows.push_back({cat("step ", event.step), event.kind, event_text(event, all)});
  }
  if (rows.empty()) return;
  printer.title("edits and events");
  printer.grid(rows);
}

void print_log(const Printer& printer, const Workspace& workspace, const RunDetail& detail,
               int wanted) {
  const auto file = RunPaths(workspace.out, detail.run.run_uid).log(detail.run.attempts);
  std::ifstream in(file);
  if (!in || wanted == 0) return;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
    if (lines.size() > static_cast<std::size_t>(wanted)) lines.erase(lines.begin());
  }
  printer.title(cat("end of ", file.string()));
  for (const std::string& line : lines) std::cout << "  " << line << "\n";
}

void print_comparison(const Printer& printer, ResultStore& store, const std::string& run,
                      const std::string& other) {
  printer.title(cat("item by item against ", run_name(describe_run(store, other).run)));
  Rows rows = {{"", "items", "both right", "only this", "only the other", "both wrong",
                "McNemar's exact p", "mid-p"}};
  for (const ItemComparison& c : compare_items(store, run, other)) {
    rows.push_back({c.kind, cat(c.items), cat(c.both_right), cat(c.mcnemar.b), cat(c.mcnemar.c),
                    cat(c.both_wrong), format_p(c.mcnemar.p), format_p(c.mcnemar.mid_p)});
  }
  using enum Align;
  printer.grid(rows, {Left, Right, Right, Right, Right, Right, Right, Right});
  std::cout << "  of these two checkpoints alone; a table compares over seeds\n";
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  const RunDetail detail = describe_run(*store, find_run(*store, options.run));
  const std::string other = options.against.empty() ? "" : find_run(*store, options.against);
  const Printer printer(globals.style(1));
  std::cout << styled(globals.style(1), "1", run_name(detail.run)) << "  " << detail.run.state
            << "\n  id " << detail.run.run_uid << ", " << detail.run.dataset << ", in "
            << RunPaths(workspace.out, detail.run.run_uid).directory.string() << "\n";
  print_finals(printer, detail);
  if (!other.empty()) print_comparison(printer, *store, detail.run.run_uid, other);
  print_curves(printer, *store, detail);
  print_retrievals(printer, detail);
  print_lineage(printer, *store, detail);
  print_events(printer, detail, options.all);
  print_attempts(printer, detail);
  print_environment(printer, detail);
  print_spec(printer, detail, options.all);
  print_log(printer, workspace, detail, options.log_lines);
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  add_run_argument(app, options->run);
  app.add_option("--against", options->against,
                 "Another run: which test images only one of them has right (McNemar's test)")
      ->type_name("RUN");
  app.add_option("--log", options->log_lines, "Lines of the last attempt's log")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_flag("--all", options->all, "Every setting and every event");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "show",
    .position = 4,
    .summary = "Everything about one run: spec, lineage, edits, curves, environment, log",
    .examples = "  ablate show 3f2a\n"
                "  ablate show \"NOSE + ToMe seed 0\" --log 50\n"
                "  ablate show \"NOSE seed 0\" --against \"dense seed 0\"\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::show_command
