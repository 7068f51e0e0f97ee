#include "sweeps/sweep_spec.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

constexpr std::int64_t kMaxSeed = std::numeric_limits<std::int64_t>::max();

[[noreturn]] void fail_at(const Origin& origin, const std::string& message) {
  throw SpecError(cat(origin.str(), ": ", message));
}

std::vector<std::string> labels_of(const SweepSpec& sweep) {
  std::vector<std::string> labels;
  for (const Variant& variant : sweep.variants) labels.push_back(variant.label);
  return labels;
}

const Value& table_or_empty(Params& params, std::string_view key, std::string_view help) {
  static const Value empty;
  const Value* value = params.raw(key, help);
  if (value == nullptr) return empty;
  value->as_table();
  return *value;
}

/// `methods` must be an array of tables with a name before anything can be said about axes.
void check_methods(const Value& run) {
  const Value* methods = run.find("methods");
  if (methods == nullptr) return;
  for (const Value& method : methods->as_array()) {
    const Value* name = method.is_table() ? method.find("name") : nullptr;
    if (name == nullptr) {
      fail_at(method.origin(),
              "a method is a table with a name, such as { name = \"tome\", r = 4 }");
    }
    name->as_string();
  }
}

/// Any other key of a variant belongs to the run, so a slip in this one is looked for here.
[[noreturn]] void missing_label(const Value& table) {
  const std::vector<std::string> wanted = {"label"};
  for (const auto& [key, value] : table.as_table()) {
    if (nearest_name(key, wanted).empty()) continue;
    fail_at(value.origin(), cat("variant.", key, ": unknown key", suggestion(key, wanted)));
  }
  fail_at(table.origin(), "variant.label: is required: the name of the row in the table");
}

Variant parse_variant(const Value& table) {
  Variant variant;
  variant.origin = table.origin();
  for (const auto& [key, value] : table.as_table()) {
    if (key == "label") {
      variant.label = value.as_string();
    } else if (key == "from") {
      variant.from = value.as_string();
    } else if (key == "teacher") {
      variant.teacher = value.as_string();
    } else if (key == "seed") {
      fail_at(value.origin(),
              "variant.seed: seeds belong into [seeds], they are equal for all rows");
    } else if (key == "dataset") {
      fail_at(
          value.origin(),
          "variant.dataset: all rows share [run].dataset, or each of top-level datasets = [...]");
    } else {
      variant.run[key] = value;
    }
  }
  if (variant.label.empty()) missing_label(table);
  if (variant.label.find_first_of("[]\n") != std::string::npos) {
    fail_at(table.origin(), cat("variant.label \"", variant.label,
                                "\": brackets are kept for the coordinates of axes"));
  }
  check_methods(variant.run);
  return variant;
}

void parse_variants(Params& params, SweepSpec& sweep) {
  const Value* list = params.raw("variant", "the rows: one [[variant]] each");
  if (list == nullptr || !list->is_array() || list->as_array().empty()) {
    params.fail("variant", "at least one [[variant]] with a label is needed");
  }
  for (const Value& table : list->as_array()) {
    Variant variant = parse_variant(table);
    if (const Variant* twin = sweep.find(variant.label)) {
      fail_at(variant.origin, cat("the label \"", variant.label, "\" is taken by the variant at ",
                                  twin->origin.str()));
    }
    sweep.variants.push_back(std::move(variant));
  }
}

void check_parent(const SweepSpec& sweep, const Variant& variant, const std::string& parent,
                  std::string_view key) {
  if (parent.empty() || sweep.find(parent) != nullptr) return;
  const auto labels = labels_of(sweep);
  fail_at(variant.origin, cat("variant \"", variant.label, "\": ", key, " = \"", parent,
                              "\": no such variant", suggestion(parent, labels)));
}

void check_graph(const SweepSpec& sweep) {
  for (const Variant& variant : sweep.variants) {
    check_parent(sweep, variant, variant.from, "from");
    check_parent(sweep, variant, variant.teacher, "teacher");
  }
  std::set<std::string> finished;
  std::vector<std::string> path;
  const std::function<void(const std::string&)> visit = [&](const std::string& label) {
    if (label.empty() || finished.contains(label)) return;
    const Variant& variant = *sweep.find(label);
    const bool cycle = std::find(path.begin(), path.end(), label) != path.end();
    path.push_back(label);
    if (cycle) {
      fail_at(variant.origin,
              cat("the parents of \"", label, "\" form a cycle: ", join(path, " <- ")));
    }
    visit(variant.from);
    visit(variant.teacher);
    path.pop_back();
    finished.insert(label);
  };
  for (const Variant& variant : sweep.variants) visit(variant.label);
}

std::vector<Axis> parse_axes(const Value& table) {
  std::vector<Axis> axes;
  // [axes] keys are paths: "tome.r" in quotes is one key, tome.r without is a nested table.
  const std::function<void(const Value&, const std::string&)> visit = [&](const Value& node,
                                                                          const std::string& path) {
    if (node.is_table()) {
      for (const auto& [key, child] : node.as_table()) {
        visit(child, path.empty() ? key : cat(path, ".", key));
      }
      return;
    }
    if (!node.is_array() || node.as_array().empty()) {
      fail_at(node.origin(), cat("axes.", path, ": a list of values such as [2, 4] is expected"));
    }
    for (std::size_t i = 0; i < node.as_array().size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (node.as_array()[i] == node.as_array()[j]) {
          fail_at(node.as_array()[i].origin(),
                  cat("axes.", path, ": the value stands there twice"));
        }
      }
    }
    axes.push_back({path, node.as_array(), node.origin()});
  };
  visit(table, "");
  return axes;
}

std::vector<std::uint64_t> parse_seeds(const Value& table) {
  Params params(table, "seeds");
  const auto list = params.integers("list", {}, 0, kMaxSeed, "the seeds themselves");
  if (params.has("list") && (params.has("count") || params.has("first"))) {
    params.fail("list", "either list, or count and first");
  }
  const auto count = params.integer("count", 3, 1, 10'000, "how many seeds");
  const auto first = params.integer("first", 0, 0, kMaxSeed - 10'000, "the first of them");
  params.finish();
  std::vector<std::uint64_t> seeds(list.begin(), list.end());
  if (std::set(seeds.begin(), seeds.end()).size() != seeds.size()) {
    params.fail("list", "a seed stands there twice");
  }
  for (std::int64_t i = 0; seeds.size() < static_cast<std::size_t>(count) && list.empty(); ++i) {
    seeds.push_back(static_cast<std::uint64_t>(first + i));
  }
  return seeds;
}

std::vector<Value> parse_datasets(Params& params, const Value& run) {
  const Value* list = params.raw("datasets", "data sets that every variant is run on");
  if (list == nullptr) return {};
  if (run.find("dataset") != nullptr) {
    params.fail("datasets", "either datasets = [...] or dataset in [run], not both");
  }
  std::vector<Value> datasets;
  for (const Value& entry : list->as_array()) {
    Value dataset = entry;
    if (entry.is_string()) {
      dataset = Value(Value::Table{{"name", entry}}, entry.origin());
    }
    if (dataset.find("name") == nullptr) {
      fail_at(entry.origin(), "datasets: a name or a table with a name is expected");
    }
    for (const Value& other : datasets) {
      if (*other.find("name") == *dataset.find("name")) {
        fail_at(entry.origin(), "datasets: the name stands there twice");
      }
    }
    datasets.push_back(std::move(dataset));
  }
  return datasets;
}

Value parse_run(Params& params) {
  Value run = table_or_empty(params, "run", "what all runs share: a run spec with holes");
  if (const Value* methods = run.find("methods")) {
    fail_at(methods->origin(),
            "run.methods: methods belong into the [[variant]] that has them, or children would get "
            "their parent's twice");
  }
  if (const Value* seed = run.find("seed")) {
    fail_at(seed->origin(), "run.seed: seeds belong into [seeds]");
  }
  return run;
}

void apply_overrides(Value& root, const std::vector<std::string>& overrides) {
  for (const std::string& text : overrides) {
    auto [path, value] = parse_override(text);
    const std::string section = path.substr(0, path.find('.'));
    const bool named = section == "launch" || section == "seeds" || section == "table" ||
                       section == "run" || path == "name" || path == "title";
    root.set_path(named ? path : "run." + path, std::move(value));
  }
}

SweepSpec parse(Value root, std::string text, const std::string& file,
                const std::vector<std::string>& overrides) {
  apply_overrides(root, overrides);
  SweepSpec sweep;
  sweep.file = file;
  sweep.text = std::move(text);
  Params params(root, "sweep");
  sweep.name = params.required_text("name", "names the sweep in the database, once and for all");
  sweep.title = params.text("title", sweep.name, "printed above the table");
  sweep.run = parse_run(params);
  sweep.datasets = parse_datasets(params, sweep.run);
  sweep.axes = parse_axes(table_or_empty(params, "axes", "settings that multiply variants"));
  sweep.seeds = parse_seeds(table_or_empty(params, "seeds", "count and first, or list"));
  sweep.launch = parse_launch(table_or_empty(params, "launch", "how runs are started"));
  sweep.table = table_or_empty(params, "table", "layout of the table");
  parse_variants(params, sweep);
  params.finish();
  check_graph(sweep);
  return sweep;
}

}  // namespace

const Variant* SweepSpec::find(std::string_view label) const {
  for (const Variant& variant : variants) {
    if (variant.label == label) return &variant;
  }
  return nullptr;
}

SweepSpec parse_sweep_text(std::string_view text, const std::string& name,
                           const std::vector<std::string>& overrides) {
  return parse(parse_toml(text, name), std::string(text), name, overrides);
}

SweepSpec parse_sweep(const std::filesystem::path& file,
                      const std::vector<std::string>& overrides) {
  if (!std::filesystem::is_regular_file(file)) {
    throw SpecError(cat(file.string(), ": no such file; a sweep file (TOML) is expected"));
  }
  return parse_sweep_text(read_file(file), file.string(), overrides);
}

}  // namespace ablate
