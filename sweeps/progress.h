#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ablate {

/// What a run's task is judged by.
struct HeadlineScore {
  std::string name;  ///< "top1", "miou"
  double value;      ///< percent
};

/// One live run as the view shows it.
struct LiveRun {
  std::string name;  ///< "NOSE 5/12 seed 0"
  int attempt = 1;
  std::int64_t step = 0, total_steps = 0;
  std::optional<double> loss;
  std::optional<HeadlineScore> score;
  std::optional<double> images_per_s;
  std::optional<double> seconds_left;
};

/// The sweep at one moment.
struct SweepStatus {
  std::size_t done = 0, failed = 0, waiting = 0;
  std::vector<LiveRun> live;
  double elapsed_s = 0;
  std::optional<double> seconds_left;
  bool stopping = false;
};

/// How to write: chosen once from the stream, NO_COLOR and --color.
struct TerminalStyle {
  bool redraw = false;  ///< the stream is a terminal
  bool color = false;
  int width = 100;
};

/// The style for a file descriptor. `color`: "auto", "always" or "never".
TerminalStyle terminal_style(int descriptor, const std::string& color);

/// `text` in an ANSI style ("1" bold, "31" red, "32" green, "33" yellow, "2" dim) when colors are
/// on.
std::string styled(const TerminalStyle& style, const char* code, const std::string& text);

/// Live view of a sweep. On a terminal the last lines are redrawn in place, a few times a second;
/// elsewhere a line a run is written now and then, so that logs stay readable.
class ProgressView {
 public:
  ProgressView(std::ostream& out, TerminalStyle style);
  ~ProgressView();
  ProgressView(const ProgressView&) = delete;
  ProgressView& operator=(const ProgressView&) = delete;

  /// Shows the state, if enough time has passed since the last call.
  void update(const SweepStatus& status);
  /// A line that stays: a run started, ended, is tried again.
  void note(const std::string& line);
  /// Removes the redrawn lines.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  void redraw(const SweepStatus& status);
  void print_plain(const SweepStatus& status);

  std::ostream& out_;
  TerminalStyle style_;
  int drawn_lines_ = 0;
  Clock::time_point next_;
};

/// The lines of the redrawn view, at most `style.width` columns wide: apart for tests.
std::vector<std::string> progress_lines(const SweepStatus& status, const TerminalStyle& style);

}  // namespace ablate
