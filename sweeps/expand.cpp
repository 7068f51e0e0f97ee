#include "sweeps/expand.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// Chosen value (index into Axis::values) of every axis that a variant has.
using Coordinates = std::map<std::size_t, std::size_t>;

std::vector<std::string> own_methods(const Variant& variant) {
  std::vector<std::string> names;
  if (const Value* methods = variant.run.find("methods")) {
    for (const Value& method : methods->as_array()) {
      names.push_back(method.find("name")->as_string());
    }
  }
  return names;
}

/// Whether a path points into a method, and into which: "tome.r" and "methods.tome.r".
std::string method_of(const Axis& axis, const std::set<std::string>& known) {
  const std::vector<std::string> steps = split(axis.path, '.');
  if (steps[0] == "methods" && steps.size() > 2) return steps[1];
  return steps.size() > 1 && known.contains(steps[0]) ? steps[0] : "";
}

/// What is known about an axis before variants are multiplied.
struct AxisPlan {
  std::string method;           ///< empty: a setting of the run
  std::vector<bool> own;        ///< per variant: the axis sets a value there
  std::vector<bool> effective;  ///< per variant: own, or inherited from a parent
};

std::size_t index_of(const SweepSpec& sweep, const std::string& label) {
  return static_cast<std::size_t>(sweep.find(label) - sweep.variants.data());
}

std::vector<std::size_t> parents_of(const SweepSpec& sweep, std::size_t variant) {
  std::vector<std::size_t> parents;
  for (const std::string& label : {sweep.variants[variant].from, sweep.variants[variant].teacher}) {
    if (!label.empty()) parents.push_back(index_of(sweep, label));
  }
  return parents;
}

/// Variants, parents first, otherwise in the order of the file.
std::vector<std::size_t> topological_order(const SweepSpec& sweep) {
  std::vector<std::size_t> order;
  std::vector<bool> done(sweep.variants.size(), false);
  const std::function<void(std::size_t)> visit = [&](std::size_t variant) {
    if (done[variant]) return;
    done[variant] = true;
    for (const std::size_t parent : parents_of(sweep, variant)) visit(parent);
    order.push_back(variant);
  };
  for (std::size_t i = 0; i < sweep.variants.size(); ++i) visit(i);
  return order;
}

[[noreturn]] void applies_nowhere(const SweepSpec& sweep, const Axis& axis,
                                  const std::set<std::string>& methods) {
  std::set<std::string> accepted = methods;
  for (const auto& [key, value] : sweep.run.as_table()) {
    if (value.is_table()) accepted.insert(key);
  }
  const std::vector<std::string> names(accepted.begin(), accepted.end());
  const std::string first = split(axis.path, '.')[0];
  throw SpecError(cat(axis.origin.str(), ": axes.\"", axis.path,
                      "\" applies nowhere: no variant has a method \"", first,
                      "\" and [run] has no such table", suggestion(first, names)));
}

bool is_run_setting(const SweepSpec& sweep, const std::string& path) {
  const std::string first = path.substr(0, path.find('.'));
  if (first == path) return true;
  const auto has_table = [&](const Value& run) {
    const Value* table = run.find(first);
    return table != nullptr && table->is_table();
  };
  return has_table(sweep.run) || (first == "dataset" && !sweep.datasets.empty()) ||
         std::any_of(sweep.variants.begin(), sweep.variants.end(),
                     [&](const Variant& variant) { return has_table(variant.run); });
}

AxisPlan plan_axis(const SweepSpec& sweep, const Axis& axis,
                   const std::set<std::string>& known_methods,
                   const std::vector<std::size_t>& order) {
  AxisPlan plan;
  plan.method = method_of(axis, known_methods);
  const bool run_setting = plan.method.empty() && is_run_setting(sweep, axis.path);
  for (const Variant& variant : sweep.variants) {
    const auto methods = own_methods(variant);
    const bool has = std::find(methods.begin(), methods.end(), plan.method) != methods.end();
    plan.own.push_back(run_setting ? variant.run.find_path(axis.path) == nullptr : has);
  }
  plan.effective = plan.own;
  for (const std::size_t variant : order) {
    for (const std::size_t parent : parents_of(sweep, variant)) {
      if (plan.effective[parent]) plan.effective[variant] = true;
    }
  }
  if (std::find(plan.own.begin(), plan.own.end(), true) == plan.own.end()) {
    applies_nowhere(sweep, axis, known_methods);
  }
  return plan;
}

/// Every combination of the axes a variant has, the last axis running fastest.
std::vector<Coordinates> grid(const SweepSpec& sweep, const std::vector<AxisPlan>& plans,
                              std::size_t variant) {
  std::vector<Coordinates> points = {{}};
  for (std::size_t axis = 0; axis < plans.size(); ++axis) {
    if (!plans[axis].effective[variant]) continue;
    std::vector<Coordinates> longer;
    for (const Coordinates& point : points) {
      for (std::size_t value = 0; value < sweep.axes[axis].values.size(); ++value) {
        longer.push_back(point);
        longer.back()[axis] = value;
      }
    }
    points = std::move(longer);
  }
  return points;
}

std::string value_text(const Value& value) {
  return value.is_string() ? value.as_string() : value.to_json().dump();
}

/// A variant with coordinates: one row of the table (a data set apart).
struct Row {
  std::size_t variant = 0;
  Coordinates point;
  std::string label;
  int position = 0;
};

std::string row_label(const SweepSpec& sweep, const Row& row) {
  std::vector<std::string> parts;
  for (const auto& [axis, value] : row.point) {
    parts.push_back(cat(sweep.axes[axis].path, "=", value_text(sweep.axes[axis].values[value])));
  }
  const std::string& label = sweep.variants[row.variant].label;
  return parts.empty() ? label : cat(label, " [", join(parts), "]");
}

Value row_spec(const SweepSpec& sweep, const std::vector<AxisPlan>& plans, const Row& row,
               const Value& dataset) {
  Value spec = overlay(sweep.run, sweep.variants[row.variant].run);
  spec["dataset"] = dataset;
  for (const auto& [axis, value] : row.point) {
    if (!plans[axis].own[row.variant]) continue;
    const std::string& path = sweep.axes[axis].path;
    const bool short_form = !plans[axis].method.empty() && !path.starts_with("methods.");
    spec.set_path(short_form ? "methods." + path : path, sweep.axes[axis].values[value]);
  }
  return spec;
}

/// Rows in topological order, numbered in the order of the file.
std::vector<Row> make_rows(const SweepSpec& sweep, const std::vector<AxisPlan>& plans,
                           const std::vector<std::size_t>& order) {
  std::vector<int> first(sweep.variants.size());
  int position = 0;
  for (std::size_t i = 0; i < sweep.variants.size(); ++i) {
    first[i] = position;
    position += static_cast<int>(grid(sweep, plans, i).size());
  }
  std::vector<Row> rows;
  for (const std::size_t variant : order) {
    for (Coordinates& point : grid(sweep, plans, variant)) {
      Row row{variant, std::move(point), "", first[variant]++};
      row.label = row_label(sweep, row);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

/// The row of `parent` at the child's coordinates.
std::size_t parent_row(const std::vector<Row>& rows, std::size_t parent, const Row& child) {
  const auto fits = [&](const Row& row) {
    return row.variant == parent &&
           std::all_of(row.point.begin(), row.point.end(), [&](const auto& coordinate) {
             return child.point.at(coordinate.first) == coordinate.second;
           });
  };
  const auto found = std::find_if(rows.begin(), rows.end(), fits);
  ABLATE_CHECK(found != rows.end(), "no parent at the coordinates of ", child.label);
  return static_cast<std::size_t>(found - rows.begin());
}

std::vector<Value> datasets_of(const SweepSpec& sweep) {
  if (!sweep.datasets.empty()) return sweep.datasets;
  const Value* dataset = sweep.run.find("dataset");
  if (dataset == nullptr || !dataset->is_table() || dataset->find("name") == nullptr) {
    throw SpecError(cat(dataset == nullptr ? sweep.file : dataset->origin().str(),
                        ": run.dataset: required: a table with a name, such as "
                        "dataset = { name = \"cifar100\" }"));
  }
  return {*dataset};
}

/// The edges of one row to the rows of the same block, whose first draft is `block`.
std::vector<DraftParent> edges(const SweepSpec& sweep, const std::vector<Row>& rows, const Row& row,
                               std::size_t block) {
  std::vector<DraftParent> parents;
  const auto link = [&](const std::string& parent, const char* role) {
    if (parent.empty()) return;
    parents.push_back({role, block + parent_row(rows, index_of(sweep, parent), row)});
  };
  link(sweep.variants[row.variant].from, "init");
  link(sweep.variants[row.variant].teacher, "teacher");
  return parents;
}

}  // namespace

Value overlay(const Value& lower, const Value& upper) {
  if (!lower.is_table() || !upper.is_table()) return upper;
  const Value* lower_name = lower.find("name");
  const Value* upper_name = upper.find("name");
  if (upper_name != nullptr && (lower_name == nullptr || !(*lower_name == *upper_name))) {
    return upper;
  }
  Value merged = lower;
  for (const auto& [key, value] : upper.as_table()) {
    const Value* below = lower.find(key);
    merged[key] = below == nullptr ? value : overlay(*below, value);
  }
  return merged;
}

std::vector<Draft> expand(const SweepSpec& sweep) {
  std::set<std::string> known_methods;
  for (const Variant& variant : sweep.variants) {
    for (std::string& name : own_methods(variant)) known_methods.insert(std::move(name));
  }
  const std::vector<std::size_t> order = topological_order(sweep);
  std::vector<AxisPlan> plans;
  for (const Axis& axis : sweep.axes) {
    plans.push_back(plan_axis(sweep, axis, known_methods, order));
  }
  const std::vector<Row> rows = make_rows(sweep, plans, order);
  const std::vector<Value> datasets = datasets_of(sweep);

  std::vector<Draft> drafts;
  for (std::size_t d = 0; d < datasets.size(); ++d) {
    const std::string& name = datasets[d].find("name")->as_string();
    const std::string suffix = datasets.size() > 1 ? cat(" [dataset=", name, "]") : "";
    const int first_row = static_cast<int>(d * rows.size());
    for (const std::uint64_t seed : sweep.seeds) {
      const std::size_t block = drafts.size();
      for (const Row& row : rows) {
        Value spec = row_spec(sweep, plans, row, datasets[d]);
        spec["seed"] = Value(static_cast<std::int64_t>(seed));
        drafts.push_back({row.label + suffix, sweep.variants[row.variant].label, name, seed,
                          first_row + row.position, std::move(spec), edges(sweep, rows, row, block),
                          sweep.variants[row.variant].origin});
      }
    }
  }
  return drafts;
}

std::vector<std::string> row_labels(const std::vector<Draft>& drafts) {
  std::map<int, std::string> labels;
  for (const Draft& draft : drafts) labels.emplace(draft.row, draft.label);
  std::vector<std::string> result;
  for (const auto& [row, label] : labels) result.push_back(label);
  return result;
}

}  // namespace ablate
