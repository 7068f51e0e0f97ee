#include "results/render.h"

#include <gtest/gtest.h>

#include "results/text_grid.h"

namespace ablate {
namespace {

/// A table made by hand, so that the goldens below depend on the renderers alone.
RenderedTable small_table() {
  RenderedTable table;
  table.title = "Tokens & layers_1";
  table.columns = {{"", "#", "", ColumnRole::Number, {}},
                   {"", "variant", "", ColumnRole::Label, {}},
                   {"top1", "top1 (%)", "%", ColumnRole::Value, {{"residual_sd", "0.25"}}},
                   {"top1", "Δ [95 % CI]", "%", ColumnRole::Delta, {}},
                   {"top1", "p (Holm)", "", ColumnRole::P, {}},
                   {"top1", "own t p", "", ColumnRole::OwnP, {}},
                   {"params_m", "params_m (M)", "M", ColumnRole::Value, {}}};
  table.rows = {{RowKind::Baseline,
                 "dense",
                 {{"1", {}, {}},
                  {"dense", {}, {}},
                  {"71.32 ± 0.21 (3)", {}, {{"n", "3"}, {"mean", "71.3249"}}},
                  {},
                  {},
                  {},
                  {"5.72", {}, {{"mean", "5.717416"}}}}},
                {RowKind::Ours,
                 "ToMe, r=4",
                 {{"2", {}, {}},
                  {"ToMe, r=4", {0}, {}},
                  {"70.90 (1)", {1}, {{"n", "1"}, {"mean", "70.9"}}},
                  {"−0.42 [−0.60, −0.24]", {}, {{"difference", "-0.42"}}},
                  {"0.031", {}, {{"p_adjusted", "0.031"}}},
                  {"0.12", {}, {{"own_p", "0.12"}}},
                  {"5.72", {}, {{"mean", "5.717416"}}}}},
                {RowKind::Paper,
                 "DeiT-Ti",
                 {{}, {"DeiT-Ti", {}, {}}, {"72.2", {}, {{"value", "72.2"}}}, {}, {}, {}, {}}}};
  table.notes = {"saw 1.20 times as many images", "one seed"};
  table.findings = {"top1: minimum detectable difference 0.85."};
  table.caption = {"Cells: mean ± sd (n seeds).", "Δ against row 1 (\"dense\")."};
  table.comment = "database ab12; SQL: SELECT 1 -- x";
  return table;
}

TEST(RenderTerminal, Golden) {
  EXPECT_EQ(render_terminal(small_table()),
            R"(Tokens & layers_1

#  variant             top1 (%)           Δ [95 % CI]  p (Holm)  own t p  params_m (M)
──────────────────────────────────────────────────────────────────────────────────────
1  dense       71.32 ± 0.21 (3)                                                   5.72
2  ToMe, r=4¹        70.90 (1)²  −0.42 [−0.60, −0.24]  0.031        0.12          5.72
──────────────────────────────────────────────────────────────────────────────────────
   DeiT-Ti                 72.2

¹ saw 1.20 times as many images
² one seed
top1: minimum detectable difference 0.85.
Cells: mean ± sd (n seeds). Δ against row 1 ("dense").
-- database ab12; SQL: SELECT 1 -- x
)");
}

TEST(RenderTerminal, TwoNotesOfACellAreToldFromNoteTwelve) {
  RenderedTable table = small_table();
  table.rows[1].cells[1].notes = {0, 1};
  EXPECT_NE(render_terminal(table).find("ToMe, r=4¹,²"), std::string::npos);
  const TerminalOptions ascii{.width = 0, .colour = false, .ascii = true};
  EXPECT_NE(render_terminal(table, ascii).find("ToMe, r=4[1,2]"), std::string::npos);
  EXPECT_NE(render_markdown(table).find("ToMe, r=4<sup>1,2</sup> |"), std::string::npos);
  EXPECT_NE(render_latex(table).find("ToMe, r=4\\textsuperscript{1,2} &"), std::string::npos);
}

TEST(RenderTerminal, AsciiOnRequest) {
  const std::string out =
      render_terminal(small_table(), {.width = 0, .colour = false, .ascii = true});
  for (const char c : out) EXPECT_LT(static_cast<unsigned char>(c), 0x80) << out;
  EXPECT_NE(out.find("71.32 +/- 0.21 (3)"), std::string::npos);
  EXPECT_NE(out.find("ToMe, r=4[1]"), std::string::npos);
  EXPECT_NE(out.find("-0.42 [-0.60, -0.24]"), std::string::npos);
}

TEST(RenderTerminal, ColourOnlyWhenAsked) {
  EXPECT_EQ(render_terminal(small_table()).find('\x1b'), std::string::npos);
  const std::string out =
      render_terminal(small_table(), {.width = 0, .colour = true, .ascii = false});
  EXPECT_NE(out.find("\x1b[2;3m   DeiT-Ti                 72.2\x1b[0m"), std::string::npos);
  EXPECT_NE(out.find("\x1b[1m1  dense"), std::string::npos);
}

TEST(RenderTerminal, BreaksIntoPanels) {
  const std::string out =
      render_terminal(small_table(), {.width = 75, .colour = false, .ascii = false});
  EXPECT_NE(out.find(R"(#  variant             top1 (%)           Δ [95 % CI]  p (Holm)  own t p
)"),
            std::string::npos)
      << out;
  EXPECT_NE(out.find(R"(#  variant     params_m (M)
───────────────────────────
1  dense               5.72
2  ToMe, r=4¹          5.72
)"),
            std::string::npos)
      << out;
}

TEST(RenderTerminal, PublishedRowsStandOnlyWhereTheyHaveNumbers) {
  const std::string out =
      render_terminal(small_table(), {.width = 75, .colour = false, .ascii = false});
  const std::size_t first = out.find("DeiT-Ti");
  ASSERT_NE(first, std::string::npos) << out;
  EXPECT_EQ(out.find("DeiT-Ti", first + 1), std::string::npos) << out;
}

TEST(RenderTerminal, DropsLesserPartsAndSaysSo) {
  const std::string out =
      render_terminal(small_table(), {.width = 66, .colour = false, .ascii = false});
  EXPECT_EQ(out.find("own t p "), std::string::npos) << out;
  EXPECT_NE(out.find("Left out at this width: own t p."), std::string::npos) << out;
  std::size_t start = 0;
  const std::string body = out.substr(0, out.find("-- database"));
  while (start < body.size()) {
    const std::size_t end = body.find('\n', start);
    EXPECT_LE(display_width(body.substr(start, end - start)), 66U);
    start = end + 1;
  }
}

TEST(RenderTerminal, NarrowTerminalsBreakAColumnUp) {
  const std::string out =
      render_terminal(small_table(), {.width = 40, .colour = false, .ascii = false});
  EXPECT_NE(out.find("#  variant             top1 (%)\n"), std::string::npos) << out;
  EXPECT_NE(out.find("#  variant        top1: Δ [95 % CI]\n"), std::string::npos) << out;
  EXPECT_NE(out.find("#  variant     top1: p (Holm)\n"), std::string::npos) << out;
}

TEST(RenderMarkdown, Golden) {
  EXPECT_EQ(render_markdown(small_table()),
            R"(**Tokens &amp; layers\_1**

| \# | variant | top1 (%) | Δ \[95 % CI\] | p (Holm) | own t p | params\_m (M) |
|---:|:---|---:|---:|:---|---:|---:|
| 1 | dense | 71.32 ± 0.21 (3) |  |  |  | 5.72 |
| 2 | ToMe, r=4<sup>1</sup> | 70.90 (1)<sup>2</sup> | −0.42 \[−0.60, −0.24\] | 0.031 | 0.12 | 5.72 |
|  | *DeiT-Ti* | *72.2* |  |  |  |  |

- <sup>1</sup> saw 1.20 times as many images
- <sup>2</sup> one seed
- top1: minimum detectable difference 0.85.

Cells: mean ± sd (n seeds). Δ against row 1 ("dense").

<!-- database ab12; SQL: SELECT 1 - - x -->
)");
}

TEST(RenderLatex, Golden) {
  EXPECT_EQ(render_latex(small_table()),
            R"(% database ab12; SQL: SELECT 1 -- x
% needs \usepackage{booktabs,graphicx}
\begin{table}
  \centering
  \small
  \setlength{\tabcolsep}{4pt}
  \caption{Tokens \& layers\_1. Cells: mean $\pm$ sd (n seeds). $\Delta$ against row 1 (``dense'').}
  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
  \begin{tabular}{rlrrlrr}
    \toprule
    \# & variant & top1 (\%) & $\Delta$ [95 \% CI] & p (Holm) & own t p & params\_m (M) \\
    \midrule
    1 & dense & 71.32 $\pm$ 0.21 (3) &  &  &  & 5.72 \\
    2 & ToMe, r=4\textsuperscript{1} & 70.90 (1)\textsuperscript{2} & $-$0.42 [$-$0.60, $-$0.24] & 0.031 & 0.12 & 5.72 \\
    \midrule
     & \textit{DeiT-Ti} & \textit{72.2} &  &  &  &  \\
    \bottomrule
  \end{tabular}}
  \par\smallskip
  \begin{minipage}{\linewidth}\footnotesize\raggedright
    \textsuperscript{1}~saw 1.20 times as many images\par
    \textsuperscript{2}~one seed\par
    top1: minimum detectable difference 0.85.\par
  \end{minipage}
\end{table}
)");
}

TEST(RenderLatex, EscapesItsOwnCharacters) {
  RenderedTable table = small_table();
  table.rows[1].cells[1].text = "a_b {50 %} ~^\\ λ<1 ≥ $#&";
  EXPECT_NE(render_latex(table).find("a\\_b \\{50 \\%\\} \\textasciitilde{}\\textasciicircum{}"
                                     "\\textbackslash{} $\\lambda$$<$1 $\\geq$ \\$\\#\\&"),
            std::string::npos);
}

TEST(RenderLatex, QuotesWithinQuotes) {
  RenderedTable table = small_table();
  table.findings = {"2 more seeds decide row 2 (\"the \"new\" one\")."};
  EXPECT_NE(render_latex(table).find("(``the ``new'' one'')."), std::string::npos);
}

TEST(RenderMarkdown, EscapesItsOwnCharacters) {
  RenderedTable table = small_table();
  table.rows[1].cells[1].text = "a|b_c *d* `e` [f] #g <h> ~i & $j$ \\";
  EXPECT_NE(render_markdown(table).find("a\\|b\\_c \\*d\\* \\`e\\` \\[f\\] \\#g &lt;h&gt; "
                                        "\\~i &amp; \\$j\\$ \\\\<sup>"),
            std::string::npos)
      << render_markdown(table);
}

TEST(RenderCsv, Golden) {
  EXPECT_EQ(render_csv(small_table()),
            R"(# database ab12; SQL: SELECT 1 -- x
row,label,kind,column,unit,statistic,value,note
1,dense,baseline,top1,%,n,3,
1,dense,baseline,top1,%,mean,71.3249,
1,dense,baseline,params_m,M,mean,5.717416,
2,"ToMe, r=4",ours,,,note,,saw 1.20 times as many images
2,"ToMe, r=4",ours,top1,%,n,1,one seed
2,"ToMe, r=4",ours,top1,%,mean,70.9,one seed
2,"ToMe, r=4",ours,top1,%,difference,-0.42,
2,"ToMe, r=4",ours,top1,,p_adjusted,0.031,
2,"ToMe, r=4",ours,top1,,own_p,0.12,
2,"ToMe, r=4",ours,params_m,M,mean,5.717416,
,DeiT-Ti,paper,top1,%,value,72.2,
,,column,top1,%,residual_sd,0.25,
)");
}

TEST(RenderCsv, QuotesByRfc4180) {
  RenderedTable table = small_table();
  table.rows[0].label = "say \"x\"";
  EXPECT_NE(render_csv(table).find("1,\"say \"\"x\"\"\",baseline"), std::string::npos);
}

TEST(TextGrid, WidthsAreThoseOfCharacters) {
  EXPECT_EQ(display_width("± 0.21¹"), 7U);
  EXPECT_EQ(display_width("日本"), 4U);
  EXPECT_EQ(display_width("e\u0301"), 1U);
}

TEST(TextGrid, WrapsAtBlanks) {
  EXPECT_EQ(wrap_text("aa bb cc dd", 5, 0), (std::vector<std::string>{"aa bb", "cc dd"}));
  EXPECT_EQ(wrap_text("aa bb cc", 5, 2), (std::vector<std::string>{"aa bb", "  cc"}));
  EXPECT_EQ(wrap_text("abcdefgh ij", 5, 0), (std::vector<std::string>{"abcdefgh", "ij"}));
  EXPECT_EQ(wrap_text("aa  bb", 0, 0), std::vector<std::string>{"aa bb"});
}

}  // namespace
}  // namespace ablate
