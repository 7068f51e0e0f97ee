#include "results/table.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "results/column_analysis.h"
#include "results/number_format.h"
#include "runner/core/error.h"
#include "tests/results/table_fixture.h"

namespace ablate {
namespace {

/// Text of a cell, by row label, column and role; "(none)" when there is no such cell.
std::string text(const RenderedTable& table, const std::string& label, const std::string& column,
                 ColumnRole role) {
  for (const RenderedRow& row : table.rows) {
    if (row.label != label) continue;
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      if (table.columns[i].group == column && table.columns[i].role == role) {
        return row.cells[i].text;
      }
    }
  }
  return "(none)";
}

bool contains(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const auto& line) { return line.find(part) != std::string::npos; });
}

std::string error_of(const TableSpec& spec, const TableData& data) {
  try {
    build_table(spec, data);
  } catch (const SpecError& error) {
    return error.what();
  }
  return "no error";
}

TEST(NumberFormat, TwoSignificantDigitsOfTheSpread) {
  EXPECT_EQ(format_mean_sd(71.3249, 0.2134), "71.32 ± 0.21");
  EXPECT_EQ(format_mean_sd(71.3249, 0.0996), "71.32 ± 0.10");
  EXPECT_EQ(format_mean_sd(1523.4, 12.3), "1523 ± 12");
  EXPECT_EQ(format_mean_sd(-0.5, 1.94), "−0.5 ± 1.9");
  EXPECT_EQ(decimals_for_spread(0.0995), 2);
  EXPECT_EQ(decimals_for_spread(0.094), 3);
  EXPECT_EQ(decimals_for_value(5.717, 4), 3);
}

TEST(NumberFormat, SignsAndSmallValues) {
  EXPECT_EQ(format_signed(0.42, 2), "+0.42");
  EXPECT_EQ(format_signed(-0.42, 2), "−0.42");
  EXPECT_EQ(format_signed(-0.001, 2), "+0.00");
  EXPECT_EQ(format_p(0.0004), "<0.001");
  EXPECT_EQ(format_p(0.00312), "0.0031");
  EXPECT_EQ(format_p(0.0312), "0.031");
  EXPECT_EQ(format_p(0.3), "0.30");
  EXPECT_EQ(format_change(86, 100), "−14.0 %");
  EXPECT_EQ(format_change(350, 100), "+250 %");
  EXPECT_EQ(format_change(1.0003, 1), "+0.03 %");
  EXPECT_EQ(format_change(3, 3), "=");
  EXPECT_EQ(format_change(3, 0), "");
  EXPECT_EQ(full_precision(0.1), "0.1");
}

TEST(TableSpecs, ReadsEveryKey) {
  const TableSpec spec = parse_table_spec(parse_toml(R"(
columns = ["top1", "loss"]
baseline = "dense"
test = "welch"
correction = "none"
alpha = 0.1
power = 0.9
margin = 1.5
margins = { loss = 0.01 }
references = ["deit", { source = "Doe 2024", model = "M" }]
)",
                                                     "t.toml"));
  EXPECT_EQ(spec.columns, (std::vector<std::string>{"top1", "loss"}));
  EXPECT_EQ(spec.baseline, "dense");
  EXPECT_EQ(spec.test, TestKind::Welch);
  EXPECT_EQ(spec.correction, Correction::None);
  EXPECT_EQ(spec.alpha, 0.1);
  EXPECT_EQ(spec.power, 0.9);
  EXPECT_EQ(spec.margin_of("top1", "%"), 1.5);
  EXPECT_EQ(spec.margin_of("loss", ""), 0.01);
  EXPECT_EQ(spec.margin_of("other", "ms"), std::nullopt);
  ASSERT_EQ(spec.references.size(), 2U);
  EXPECT_EQ(spec.references[0].source, "deit");
  EXPECT_EQ(spec.references[1].source, "Doe 2024");
  EXPECT_EQ(spec.references[1].model, "M");
  EXPECT_EQ(spec.references[1].origin.line, 10);
}

TEST(TableSpecs, RefusesWhatItDoesNotKnow) {
  const auto parse = [](const char* toml) { return parse_table_spec(parse_toml(toml, "t.toml")); };
  EXPECT_THROW(parse("colums = [\"top1\"]"), SpecError);
  EXPECT_THROW(parse("columns = []"), SpecError);
  EXPECT_THROW(parse("columns = [\"top1\", \"top1\"]"), SpecError);
  EXPECT_THROW(parse("columns = \"top1\""), SpecError);
  EXPECT_THROW(parse("test = \"anova\""), SpecError);
  EXPECT_THROW(parse("margins = { top5 = 1.0 }"), SpecError);
  EXPECT_THROW(parse("margins = { top1 = -1.0 }"), SpecError);
  EXPECT_THROW(parse("alpha = 0.9"), SpecError);
  EXPECT_THROW(parse("references = \"Doe\""), SpecError);
  EXPECT_THROW(parse("references = [1]"), SpecError);
  EXPECT_THROW(parse("references = [{ model = \"M\" }]"), SpecError);
}

TEST(Tables, BlockedModelOfTheVascularGraft) {
  const RenderedTable table = build_table({}, graft_table());
  // Means and sd by R; intervals, p (0.479, 0.0247, 0.00041) and t by statsmodels; Holm by hand.
  EXPECT_EQ(text(table, "8500", "yield", ColumnRole::Value), "92.8 ± 4.6 (6)");
  EXPECT_EQ(text(table, "8700", "yield", ColumnRole::Delta), "−1.1 [−4.5, +2.2]");
  EXPECT_EQ(text(table, "8700", "yield", ColumnRole::Pairs), "6");
  EXPECT_EQ(text(table, "8700", "yield", ColumnRole::P), "0.48 undecided");
  EXPECT_EQ(text(table, "8900", "yield", ColumnRole::P), "0.049");
  EXPECT_EQ(text(table, "9100", "yield", ColumnRole::P), "0.0012");
  EXPECT_EQ(text(table, "8500", "yield", ColumnRole::Delta), "");
  EXPECT_EQ(table.rows[0].kind, RowKind::Baseline);
  EXPECT_TRUE(contains(table.caption, "equal variances assumed"));
  EXPECT_TRUE(contains(table.caption, "Holm within the column"));
  EXPECT_TRUE(contains(table.caption, "split test, final value: last"));
}

TEST(Tables, DetectableDifferenceAndTopUp) {
  const RenderedTable table = build_table({}, graft_table());
  // se = 1.5627, df = 15, alpha = 0.05 / 3: 5.6017 by numerical integration; 121 seeds for row 2.
  EXPECT_TRUE(contains(table.findings,
                       "yield: minimum detectable difference 5.6 (power 0.8, two-sided α = 0.05, "
                       "Holm over 3 rows, n = 6, df = 15)."));
  EXPECT_TRUE(contains(table.findings,
                       "yield, if the differences stay as they are: more than 100 more seeds would "
                       "be needed for row 2 (\"8700\")."));
  EXPECT_FALSE(contains(table.findings, "row 4"));
}

TEST(Tables, TopUpNamesSeedsAndRow) {
  // Two variants: the blocked model is the paired t. d = (1, 2, 3, 6): mean 3, sd 2.160; power 0.8
  // at 7 seeds (0.862), not at 6 (0.775).
  const RenderedTable table = build_table(
      {}, table_of(top1_column(),
                   {{"dense", cell({70, 70, 70, 70})}, {"ToMe", cell({71, 72, 73, 76})}}));
  EXPECT_EQ(text(table, "ToMe", "top1", ColumnRole::P), "0.069 undecided");
  EXPECT_TRUE(contains(table.findings, "3 more seeds decide row 2 (\"ToMe\")."));
}

TEST(Tables, NeverSaysNotSignificant) {
  const RenderedTable table = build_table({}, graft_table());
  for (const auto* lines : {&table.caption, &table.findings, &table.notes}) {
    EXPECT_FALSE(contains(*lines, "significant"));
  }
}

TEST(Tables, OneSeedIsFlaggedAndCannotDecide) {
  const RenderedTable table =
      build_table({}, table_of(top1_column(), {{"dense", cell({71.25})}, {"ToMe", cell({70.5})}}));
  EXPECT_EQ(text(table, "ToMe", "top1", ColumnRole::Value), "70.50 (1)");
  EXPECT_EQ(text(table, "ToMe", "top1", ColumnRole::Delta), "−0.75");
  EXPECT_EQ(text(table, "ToMe", "top1", ColumnRole::P), "cannot decide at n = 1; needs ≥ 2 seeds");
  EXPECT_TRUE(contains(table.notes, "one seed"));
}

TEST(Tables, WilcoxonCannotDecideAtThreeSeeds) {
  TableSpec spec;
  spec.test = TestKind::Wilcoxon;
  TableData data = table_of(top1_column(), {{"dense", cell({70, 71, 72})},
                                            {"a", cell({73, 74.1, 75.3})},
                                            {"b", cell({73.5, 74, 75.1})},
                                            {"c", cell({72.5, 73, 76})}});
  RenderedTable table = build_table(spec, data);
  // Three rows under Holm: 2 / 2^n <= 0.05 / 3 from n = 7 on.
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::P), "cannot decide at n = 3; needs ≥ 7 seeds");
  spec.correction = Correction::None;
  table = build_table(spec, data);
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::P), "cannot decide at n = 3; needs ≥ 6 seeds");
}

TEST(Tables, WilcoxonDecidesTheDepressionData) {
  TableSpec spec;
  spec.test = TestKind::Wilcoxon;
  const RenderedTable table = build_table(
      spec, table_of({"factor", "", Better::Lower, ColumnKind::Deterministic, false, "", ""},
                     {{"after", cell({0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29})},
                      {"before", cell({1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30})}}));
  EXPECT_EQ(text(table, "before", "factor", ColumnRole::P), "0.039");
  EXPECT_EQ(text(table, "before", "factor", ColumnRole::Delta), "+0.46 [+0.01, +0.79]");
}

TEST(Tables, PairedAndWelchOfTheSleepData) {
  const TableData data =
      table_of({"extra", "h", Better::Higher, ColumnKind::Deterministic, false, "", ""},
               {{"drug 2", cell({1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4})},
                {"drug 1", cell({0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0})}});
  TableSpec spec;
  spec.test = TestKind::PairedT;
  RenderedTable table = build_table(spec, data);
  EXPECT_EQ(text(table, "drug 1", "extra", ColumnRole::P), "0.0028");
  EXPECT_EQ(text(table, "drug 1", "extra", ColumnRole::Delta), "−1.58 [−2.46, −0.70]");
  EXPECT_EQ(text(table, "drug 1", "extra", ColumnRole::OwnP), "(none)");
  spec.test = TestKind::Welch;
  table = build_table(spec, data);
  EXPECT_EQ(text(table, "drug 1", "extra", ColumnRole::P), "0.079 undecided");
  EXPECT_EQ(text(table, "drug 1", "extra", ColumnRole::OwnP), "0.0028");
}

TEST(Tables, DivergedAndMissingSeedsAreShown) {
  TableData data = table_of(top1_column(), {{"dense", cell({70, 71, 72})},
                                            {"a", cell({73, 74})},
                                            {"b", {}},
                                            {"c", cell({70.5, NAN, 72.1})}});
  data.rows[1].cells[0].diverged = 1;
  data.rows[2].cells[0].diverged = 1;
  data.rows[2].cells[0].missing = 2;
  const RenderedTable table = build_table({}, data);
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::Value), "73.50 ± 0.71 2/3 (1 diverged)");
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::Pairs), "2");
  EXPECT_EQ(text(table, "b", "top1", ColumnRole::Value), "– 0/3 (1 diverged, 2 missing)");
  EXPECT_EQ(text(table, "b", "top1", ColumnRole::P), "");
  EXPECT_EQ(text(table, "c", "top1", ColumnRole::Value), "71.3 ± 1.1 2/3 (1 diverged)");
  EXPECT_TRUE(contains(table.findings, "incomplete blocks: least squares over 7 of 9 runs"));
}

TEST(Tables, RowsWithoutACommonSeedAreNotCompared) {
  TableData data = table_of(top1_column(), {{"dense", cell({70, 71, 72})}, {"a", cell({73, 74})}});
  data.rows[1].cells[0].values[0].seed = 7;
  data.rows[1].cells[0].values[1].seed = 8;
  const RenderedTable table = build_table({}, data);
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::P), "no common seed");
  EXPECT_EQ(text(table, "a", "top1", ColumnRole::Delta), "");
}

TEST(Tables, ClaimsUseTheMarginFromFiveSeedsOn) {
  TableData data = table_of(top1_column(), {{"dense", cell({70, 71, 72, 71, 70})},
                                            {"same", cell({70.1, 70.9, 72, 71.1, 70})},
                                            {"better", cell({73, 74.1, 75, 73.9, 73})},
                                            {"worse", cell({69, 70.1, 71, 69.9, 69})}});
  RenderedTable table = build_table({}, data);
  EXPECT_EQ(text(table, "same", "top1", ColumnRole::Claim), "equal");
  EXPECT_EQ(text(table, "better", "top1", ColumnRole::Claim), "no worse");
  EXPECT_EQ(text(table, "worse", "top1", ColumnRole::Claim), "undecided");
  for (RowData& row : data.rows) row.cells[0].values.pop_back();
  table = build_table({}, data);
  EXPECT_EQ(text(table, "same", "top1", ColumnRole::Claim), "undecided");
  EXPECT_TRUE(contains(table.notes, "at least 5 seeds"));
}

TEST(Tables, CountsAreExact) {
  const ColumnData column{"params_m", "M", Better::Lower, ColumnKind::Deterministic, true, "", ""};
  const RenderedTable table =
      build_table({}, table_of(column, {{"dense", cell({5.717416, 5.717416})},
                                        {"NOSE", cell({5.717224, 5.717224})},
                                        {"half", cell({2.858708, 2.858708})}}));
  EXPECT_EQ(text(table, "dense", "params_m", ColumnRole::Value), "5.7174");
  EXPECT_EQ(text(table, "NOSE", "params_m", ColumnRole::Value), "5.7172");
  EXPECT_EQ(text(table, "half", "params_m", ColumnRole::Delta), "−50.0 %");
  EXPECT_EQ(text(table, "half", "params_m", ColumnRole::P), "(none)");
  const RenderedTable varied =
      build_table({}, table_of(column, {{"dense", cell({5, 5})}, {"searched", cell({4.0, 4.2})}}));
  EXPECT_EQ(text(varied, "searched", "params_m", ColumnRole::Value), "4.10 ± 0.14 (2)");
}

TEST(Tables, BenchColumnsRefuseMixedProtocols) {
  const ColumnData column{"images_per_s", "", Better::Higher, ColumnKind::Bench, false, "", ""};
  TableData data = table_of(column, {{"dense", cell({1500})}, {"ToMe", cell({2100})}});
  data.rows[0].cells[0].protocol = data.rows[1].cells[0].protocol = "infer b128 fp32";
  data.rows[0].cells[0].spread = 0.01;
  const RenderedTable table = build_table({}, data);
  EXPECT_EQ(text(table, "dense", "images_per_s", ColumnRole::Value), "1500 ± 15");
  EXPECT_EQ(text(table, "ToMe", "images_per_s", ColumnRole::Value), "2100");
  EXPECT_EQ(text(table, "ToMe", "images_per_s", ColumnRole::Delta), "+40.0 %");
  EXPECT_TRUE(contains(table.caption, "images_per_s: measured alone under protocol infer b128"));
  // Measured in turns with the baseline: that ratio, whatever the two jobs' own figures give.
  data.rows[0].cells[0].structure = "sa";
  data.rows[1].cells[0].ratios = {1.25};
  data.rows[1].cells[0].against = "sa";
  EXPECT_EQ(text(build_table({}, data), "ToMe", "images_per_s", ColumnRole::Delta), "+25.0 %");
  data.rows[1].cells[0].against = "sc";
  EXPECT_EQ(text(build_table({}, data), "ToMe", "images_per_s", ColumnRole::Delta), "+40.0 %")
      << "in turns with another structure";
  data.rows[1].cells[0].protocol = "infer b256 fp32";
  const std::string error = error_of({}, data);
  EXPECT_NE(error.find("mixes protocols"), std::string::npos) << error;
  EXPECT_NE(error.find("infer b256 fp32\" (row \"ToMe\")"), std::string::npos) << error;
}

TEST(Tables, TrainingTimeOnASharedDeviceIsRefused) {
  const ColumnData column{"wall_s", "s", Better::Lower, ColumnKind::Timing, false, "", ""};
  TableData data = table_of(column, {{"dense", cell({100, 102})}, {"ToMe", cell({80, 81})}});
  data.rows[1].cells[0].shared_device = true;
  const RenderedTable table = build_table({}, data);
  EXPECT_EQ(text(table, "dense", "wall_s", ColumnRole::Value), "101.0 ± 1.4 (2)");
  EXPECT_EQ(text(table, "ToMe", "wall_s", ColumnRole::Value), "refused");
  EXPECT_EQ(text(table, "ToMe", "wall_s", ColumnRole::Delta), "");
  EXPECT_TRUE(contains(table.notes, "shared its device"));
}

TEST(Tables, ImagesSeenAndMixturesAreFootnoted) {
  TableData data = graft_table();
  for (RowData& row : data.rows) {
    row.images_seen = 1e6;
    row.toolchains = {"torch 2.11"};
    row.world_sizes = {2};
  }
  data.rows[1].images_seen = 1.2e6;
  data.rows[2].images_seen = 1.005e6;
  data.rows[3].toolchains = {"torch 2.11", "torch 2.10"};
  data.rows[2].world_sizes = {4};
  const RenderedTable table = build_table({}, data);
  ASSERT_EQ(table.notes.size(), 3U);
  EXPECT_EQ(table.notes[0],
            "saw 1.20 times as many images as the baseline (1200000 against 1000000)");
  EXPECT_EQ(table.rows[1].cells[1].notes, std::vector<std::size_t>{0});
  EXPECT_EQ(table.notes[1], "world sizes differ from the baseline's: 4 against 2");
  EXPECT_EQ(table.notes[2], "mixes toolchains: torch 2.11; torch 2.10");
  EXPECT_TRUE(contains(table.caption, "Toolchains: torch 2.10; torch 2.11."));
}

TEST(Tables, NotesOfVariantsAreFootnotesOfTheirRows) {
  TableData data = graft_table();
  data.rows[1].notes = {"nose: ours"};
  data.rows[3].notes = {"nose: ours", "ela: ours"};
  const RenderedTable table = build_table({}, data);
  ASSERT_EQ(table.notes, (std::vector<std::string>{"nose: ours", "ela: ours"}));
  EXPECT_EQ(table.rows[1].cells[1].notes, std::vector<std::size_t>{0});
  EXPECT_EQ(table.rows[2].cells[1].notes, std::vector<std::size_t>{});
  EXPECT_EQ(table.rows[3].cells[1].notes, (std::vector<std::size_t>{0, 1}));
}

TEST(Tables, PaperRowsStandApart) {
  TableData data = graft_table();
  data.papers = {{"graft", "Montgomery 2013", {85.7}, "mean of six"},
                 {"other", "Montgomery 2013", {85.8}, "mean of six"}};
  const RenderedTable with = build_table({}, data), without = build_table({}, graft_table());
  EXPECT_EQ(with.rows.back().kind, RowKind::Paper);
  EXPECT_EQ(text(with, "graft", "yield", ColumnRole::Value), "85.7");
  EXPECT_EQ(text(with, "graft", "yield", ColumnRole::P), "");
  EXPECT_TRUE(contains(with.caption, "not ours: Montgomery 2013 (mean of six)."));
  EXPECT_EQ(with.findings, without.findings);  // nothing is computed from it
}

TEST(Tables, UnknownBaselineNamesTheNearest) {
  TableSpec spec;
  spec.baseline = "8501";
  EXPECT_NE(error_of(spec, graft_table()).find("did you mean \"8500\""), std::string::npos);
  EXPECT_NE(error_of({}, TableData{}).find("no rows"), std::string::npos);
  spec.baseline = "9100";
  EXPECT_EQ(build_table(spec, graft_table()).rows[3].kind, RowKind::Baseline);
}

TEST(Tables, CommentIsOneLine) {
  TableData data = graft_table();
  data.database_hash = "ab12";
  data.sql = "SELECT *\n   FROM final\n";
  EXPECT_EQ(build_table({}, data).comment, "database ab12; SQL: SELECT * FROM final");
}

TEST(Tables, AThousandRowsAreNotListed) {
  TableData data = table_of(top1_column(), {});
  for (int row = 0; row < 1000; ++row) {
    std::vector<double> values;
    for (int seed = 0; seed < 5; ++seed) values.push_back(70 + std::sin(row * 7.0 + seed * 3.1));
    data.rows.push_back({cat("v", row), {cell(values)}, {}, {}, {}, {}});
  }
  const RenderedTable table = build_table({}, data);
  EXPECT_EQ(table.rows.size(), 1000U);
  EXPECT_TRUE(contains(table.findings, "others"));
  for (const std::string& finding : table.findings) EXPECT_LT(finding.size(), 2000U);
}

}  // namespace
}  // namespace ablate
