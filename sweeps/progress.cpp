#include "sweeps/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iomanip>
#include <ostream>
#include <sstream>

#include <sys/ioctl.h>
#include <unistd.h>

#include "results/text_grid.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

constexpr auto kRedrawEvery = 200ms;
constexpr auto kPlainEvery = 30s;
constexpr int kBarWidth = 20;
constexpr std::size_t kMostLiveLines = 16;

std::string fixed(double value, int decimals) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(decimals) << value;
  return out.str();
}

double fraction(const LiveRun& run) {
  if (run.total_steps <= 0) return 0;
  return std::clamp(static_cast<double>(run.step) / static_cast<double>(run.total_steps), 0.0, 1.0);
}

std::string bar(double done) {
  const int full = static_cast<int>(std::lround(done * kBarWidth));
  std::string text;
  for (int i = 0; i < kBarWidth; ++i) text += i < full ? "█" : "░";
  return text;
}

std::string facts(const LiveRun& run) {
  std::vector<std::string> parts;
  parts.push_back(cat(run.step, "/", run.total_steps));
  if (run.loss) parts.push_back("loss " + fixed(*run.loss, 3));
  if (run.score) parts.push_back(cat(run.score->name, " ", fixed(run.score->value, 1)));
  if (run.images_per_s) parts.push_back(fixed(*run.images_per_s, 0) + " img/s");
  if (run.seconds_left) parts.push_back(human_duration(*run.seconds_left) + " left");
  return join(parts, "  ");
}

std::string fit_text(const std::string& text, std::size_t width) {
  const std::string cut = clip_text(text, width);
  return cut + std::string(width - display_width(cut), ' ');
}

std::string summary(const SweepStatus& status) {
  std::vector<std::string> parts = {cat(status.done, " done"), cat(status.live.size(), " running"),
                                    cat(status.waiting, " waiting")};
  if (status.failed > 0) parts.push_back(cat(status.failed, " failed"));
  std::string text = cat(join(parts), "; ", human_duration(status.elapsed_s), " passed");
  if (status.seconds_left) text += ", about " + human_duration(*status.seconds_left) + " left";
  if (status.stopping) text += "; stopping at the next step (Ctrl-C again to kill)";
  return text;
}

std::string name_of(const LiveRun& run) {
  return run.attempt > 1 ? cat(run.name, " (attempt ", run.attempt, ")") : run.name;
}

}  // namespace

TerminalStyle terminal_style(int descriptor, const std::string& color) {
  TerminalStyle style;
  const char* terminal = std::getenv("TERM");
  style.redraw =
      ::isatty(descriptor) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
  const char* no_color = std::getenv("NO_COLOR");  // no-color.org: any non-empty value
  const bool wanted = style.redraw && (no_color == nullptr || *no_color == '\0');
  style.color = color == "always" || (color == "auto" && wanted);
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) style.width = size.ws_col;
  return style;
}

std::string styled(const TerminalStyle& style, const char* code, const std::string& text) {
  return style.color ? cat("\x1b[", code, "m", text, "\x1b[0m") : text;
}

std::vector<std::string> progress_lines(const SweepStatus& status, const TerminalStyle& style) {
  const auto width = static_cast<std::size_t>(style.width);
  std::size_t name_width = 0;
  for (const LiveRun& run : status.live) {
    name_width = std::max(name_width, display_width(name_of(run)));
  }
  name_width = std::min(name_width, std::max<std::size_t>(10, width / 3));
  std::vector<std::string> lines;
  for (const LiveRun& run : status.live) {
    if (lines.size() == kMostLiveLines) {
      lines.push_back(cat("  and ", status.live.size() - kMostLiveLines, " more"));
      break;
    }
    const std::string head = "  " + fit_text(name_of(run), name_width) + "  ";
    const std::string drawn_bar = bar(fraction(run));
    const std::size_t used = 2 + name_width + 2 + kBarWidth + 2;
    lines.push_back(head + styled(style, "32", drawn_bar) + "  " +
                    clip_text(facts(run), used < width ? width - used : 0));
  }
  lines.push_back(styled(style, "1", clip_text("  " + summary(status), width)));
  return lines;
}

ProgressView::ProgressView(std::ostream& out, TerminalStyle style) : out_(out), style_(style) {
  next_ = Clock::now() + (style_.redraw ? Clock::duration(0) : Clock::duration(kPlainEvery));
}

ProgressView::~ProgressView() { clear(); }

void ProgressView::update(const SweepStatus& status) {
  if (Clock::now() < next_) return;
  if (style_.redraw) {
    redraw(status);
    next_ = Clock::now() + kRedrawEvery;
  } else {
    print_plain(status);
    next_ = Clock::now() + kPlainEvery;
  }
}

void ProgressView::note(const std::string& line) {
  clear();
  out_ << line << std::endl;
  if (style_.redraw) next_ = Clock::now();
}

void ProgressView::clear() {
  if (drawn_lines_ == 0) return;
  out_ << "\x1b[" << drawn_lines_ << "A\x1b[J" << std::flush;
  drawn_lines_ = 0;
}

void ProgressView::redraw(const SweepStatus& status) {
  const std::vector<std::string> lines = progress_lines(status, style_);
  clear();
  for (const std::string& line : lines) out_ << line << "\n";
  out_ << std::flush;
  drawn_lines_ = static_cast<int>(lines.size());
}

void ProgressView::print_plain(const SweepStatus& status) {
  for (const LiveRun& run : status.live) out_ << name_of(run) << ": " << facts(run) << "\n";
  out_ << summary(status) << std::endl;
}

}  // namespace ablate
