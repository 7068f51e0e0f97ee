#include "sweeps/progress.h"

#include <sstream>

#include <gtest/gtest.h>

#include "results/text_grid.h"

namespace ablate {
namespace {

SweepStatus sample_status() {
  SweepStatus status;
  status.done = 2;
  status.waiting = 3;
  status.elapsed_s = 65;
  LiveRun run;
  run.name = "NOSE – 5/12 seed 0";
  run.step = 25;
  run.total_steps = 100;
  run.loss = 1.2345;
  run.seconds_left = 30;
  status.live.push_back(run);
  return status;
}

TEST(Progress, LinesFitTheTerminal) {
  for (const int width : {30, 60, 80, 200}) {
    TerminalStyle style;
    style.width = width;
    for (const std::string& line : progress_lines(sample_status(), style)) {
      EXPECT_LE(display_width(line), static_cast<std::size_t>(std::max(width, 36))) << line;
    }
  }
}

TEST(Progress, ShowsTheFractionDone) {
  TerminalStyle style;
  style.width = 200;
  const std::string line = progress_lines(sample_status(), style)[0];
  EXPECT_NE(line.find("█████░"), std::string::npos) << line;
  EXPECT_EQ(line.find("██████"), std::string::npos) << line;
  EXPECT_NE(line.find("25/100"), std::string::npos);
  EXPECT_NE(line.find("loss 1.23"), std::string::npos);
}

TEST(Progress, ManyRunsAreAbridged) {
  SweepStatus status = sample_status();
  for (int i = 0; i < 40; ++i) status.live.push_back(status.live[0]);
  const auto lines = progress_lines(status, {});
  EXPECT_LT(lines.size(), 20U);
  EXPECT_NE(lines[lines.size() - 2].find("and 25 more"), std::string::npos);
}

TEST(Progress, NoEscapesWithoutATerminal) {
  std::ostringstream out;
  {
    ProgressView view(out, {});
    view.note("started");
    view.update(sample_status());
    view.clear();
  }
  EXPECT_EQ(out.str(), "started\n");
}

TEST(Progress, RedrawRemovesItsLines) {
  std::ostringstream out;
  TerminalStyle style;
  style.redraw = true;
  {
    ProgressView view(out, style);
    view.update(sample_status());
    view.note("done");
  }
  EXPECT_NE(out.str().find("\x1b[2A\x1b[J"
                           "done\n"),
            std::string::npos);
}

TEST(Progress, ColorFollowsTheStyle) {
  EXPECT_EQ(styled({}, "1", "x"), "x");
  TerminalStyle style;
  style.color = true;
  EXPECT_EQ(styled(style, "1", "x"), "\x1b[1mx\x1b[0m");
}

}  // namespace
}  // namespace ablate
