#include "results/table_spec.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

std::vector<std::string> texts(Params& params, std::string_view key,
                               std::vector<std::string> default_value, std::string_view help) {
  const Value* found = params.raw(key, help);
  if (found == nullptr) return default_value;
  if (!found->is_array()) params.fail(key, "must be a list of strings");
  std::vector<std::string> result;
  for (const Value& element : found->as_array()) {
    if (!element.is_string()) params.fail(key, "must be a list of strings");
    if (std::find(result.begin(), result.end(), element.as_string()) != result.end()) {
      params.fail(key, cat("\"", element.as_string(), "\" is listed twice"));
    }
    result.push_back(element.as_string());
  }
  params.record(key, *found);
  return result;
}

std::map<std::string, double> margins_of_columns(Params& params,
                                                 const std::vector<std::string>& columns) {
  std::map<std::string, double> result;
  const Value* found =
      params.raw("margins", "margin by column, in its unit; 0: no claim about that column");
  if (found == nullptr) return result;
  if (!found->is_table()) params.fail("margins", "must be a table such as { loss = 0.01 }");
  for (const auto& [column, value] : found->as_table()) {
    if (std::find(columns.begin(), columns.end(), column) == columns.end()) {
      params.fail("margins", cat("no column \"", column, "\"", suggestion(column, columns)));
    }
    if (value.as_double() < 0) params.fail("margins", cat(column, " must not be negative"));
    result[column] = value.as_double();
  }
  params.record("margins", *found);
  return result;
}

/// "Bolya 2023", or { source = "Bolya 2023", model = "DeiT-S" }.
std::vector<ReferenceChoice> choices_of_references(Params& params) {
  std::vector<ReferenceChoice> choices;
  const Value* found = params.raw("references", "published rows to print beside ours");
  if (found == nullptr) return choices;
  if (!found->is_array()) params.fail("references", "must be a list of sources");
  for (const Value& element : found->as_array()) {
    ReferenceChoice& choice = choices.emplace_back();
    choice.origin = element.origin();
    if (element.is_string()) {
      choice.source = element.as_string();
      continue;
    }
    Params fields(element, "table.references");
    choice.source = fields.required_text("source", "the publication");
    choice.model = fields.text("model", "", "only its rows of this model");
    choice.method = fields.text("method", "", "only its rows of this method");
    choice.dataset = fields.text("dataset", "", "only its rows on this data set");
    fields.finish();
  }
  params.record("references", *found);
  return choices;
}

TestKind test_named(const std::string& name) {
  if (name == "paired_t") return TestKind::PairedT;
  if (name == "welch") return TestKind::Welch;
  if (name == "wilcoxon") return TestKind::Wilcoxon;
  return TestKind::Blocked;
}

}  // namespace

TableSpec::TableSpec(Params& params) {
  columns = texts(params, "columns", columns, "metrics and bench figures, in order of printing");
  if (columns.empty()) params.fail("columns", "must name at least one column");
  baseline = params.text("baseline", "",
                         "label of the row the others are compared with; "
                         "empty: the first row");
  test = test_named(params.choice("test", "blocked", {"blocked", "paired_t", "welch", "wilcoxon"},
                                  "test of every row against the baseline"));
  correction = params.choice("correction", "holm", {"holm", "none"},
                             "adjustment of p within a column") == "holm"
                   ? Correction::Holm
                   : Correction::None;
  alpha = params.number("alpha", alpha, 1e-6, 0.5, "level of tests; intervals hold 1 - alpha");
  power = params.number("power", power, 0.51, 0.999, "of the minimum detectable difference");
  margin = params.number("margin", margin, 0, 100,
                         "of \"no worse\" and \"equal\" in percent columns, in points; 0: none");
  margins = margins_of_columns(params, columns);
  references = choices_of_references(params);
}

std::optional<double> TableSpec::margin_of(std::string_view column, std::string_view unit) const {
  const auto own = margins.find(std::string(column));
  const double chosen = own != margins.end() ? own->second : unit == "%" ? margin : 0;
  return chosen > 0 ? std::optional<double>(chosen) : std::nullopt;
}

double TableSpec::strictest_alpha(std::size_t comparisons) const {
  if (correction == Correction::None || comparisons == 0) return alpha;
  return alpha / static_cast<double>(comparisons);
}

std::vector<ParamHelp> table_settings() {
  const Value nothing;
  Params params(nothing, "table");
  TableSpec read(params);
  return params.help();
}

TableSpec parse_table_spec(const Value& table) {
  Params params(table, "table");
  TableSpec spec(params);
  params.finish();
  return spec;
}

}  // namespace ablate
