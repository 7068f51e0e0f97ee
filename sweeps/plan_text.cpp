#include <algorithm>
#include <cmath>
#include <ctime>
#include <iomanip>
#include <ostream>
#include <set>
#include <sstream>

#include "results/text_grid.h"
#include "runner/core/error.h"
#include "runner/core/process.h"
#include "sweeps/plan.h"

namespace ablate {
namespace {

std::string source_text(EstimateSource source) {
  switch (source) {
    case EstimateSource::SameConfiguration:
      return "measured";
    case EstimateSource::OtherRows:
      return "from other rows";
    case EstimateSource::Guess:
      break;
  }
  return "a guess: nothing of this sweep has run here yet";
}

std::string clock_text(double seconds_from_now) {
  const std::time_t time = std::time(nullptr) + static_cast<std::time_t>(seconds_from_now);
  std::tm local{};
  ::localtime_r(&time, &local);
  std::ostringstream out;
  out << std::put_time(&local, seconds_from_now > 20 * 3600 ? "%a %d %b, %H:%M" : "%H:%M");
  return out.str();
}

std::string scaled(std::int64_t value, double unit, int decimals) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(decimals) << static_cast<double>(value) / unit;
  return out.str();
}

/// States of the runs of one row: "2 done, 1 new".
std::string states_text(const std::vector<Draft>& drafts, const Plan& plan, int row) {
  std::map<std::string, int> counts;
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    if (drafts[i].row == row) ++counts[plan.runs[i].state];
  }
  std::vector<std::string> parts;
  for (const auto& [state, count] : counts) parts.push_back(cat(count, " ", state));
  return join(parts);
}

void print_rows(std::ostream& out, const std::vector<Draft>& drafts,
                const std::vector<ResolvedRun>& runs, const Plan& plan) {
  std::map<int, std::size_t> first;
  for (std::size_t i = 0; i < drafts.size(); ++i) first.emplace(drafts[i].row, i);
  std::vector<std::vector<std::string>> grid = {
      {"row", "runs", "steps", "images seen", "base params/M", "base GMACs", "time a run"}};
  for (const auto& [row, i] : first) {
    const PlannedRun& planned = plan.runs[i];
    grid.push_back({drafts[i].label, states_text(drafts, plan, row), cat(runs[i].total_steps),
                    cat(runs[i].images_seen), scaled(runs[i].base_params, 1e6, 2),
                    scaled(runs[i].base_macs, 1e9, 3), human_duration(planned.seconds)});
  }
  using enum Align;
  for (const std::string& line :
       grid_lines(grid, {Left, Left, Right, Right, Right, Right, Right})) {
    out << "  " << line << "\n";
  }
}

void print_warnings(std::ostream& out, const TerminalStyle& style, const Launch& launch,
                    const std::vector<ResolvedRun>& runs, const Plan& plan) {
  const auto warn = [&](const std::string& text) {
    out << styled(style, "33", "  note: ") << text << "\n";
  };
  const std::size_t cores = available_cpus().size();
  const auto wanted = static_cast<std::size_t>(launch.jobs) *
                      static_cast<std::size_t>(launch.ranks) *
                      static_cast<std::size_t>(launch.threads);
  if (launch.executor == "mpirun" && launch.device == "cpu" && wanted > cores) {
    warn(cat(wanted, " threads share ", cores, " cores: jobs x ranks x threads"));
  }
  if (plan.to_do > 0 &&
      plan.final_bytes + plan.checkpoint_bytes > static_cast<double>(plan.free_bytes)) {
    warn("the disk is too small for this; runs will fail when it is full");
  }
  std::set<std::string> notes;
  for (const ResolvedRun& run : runs) notes.insert(run.notes.begin(), run.notes.end());
  for (const std::string& note : notes) warn(note);
}

}  // namespace

void print_plan(std::ostream& out, const TerminalStyle& style, const SweepSpec& sweep,
                const std::vector<Draft>& drafts, const std::vector<ResolvedRun>& runs,
                const Plan& plan, const Workspace& workspace) {
  const Launch& launch = sweep.launch;
  out << styled(style, "1", sweep.title) << "\n";
  out << "  " << plan.runs.size() << " runs: " << plan.done << " done, " << plan.to_do << " to do";
  if (plan.ended > 0) out << ", " << plan.ended << " ended without a result";
  out << "\n\n";
  print_rows(out, drafts, runs, plan);
  out << "\n";
  if (plan.to_do > 0) {
    out << "  start: " << launch.ranks << " ranks x " << launch.threads << " threads a run, "
        << launch.jobs << " at a time\n";
    out << "  time:  " << human_duration(plan.work_s) << " of work, done about "
        << clock_text(plan.wall_s) << " (" << source_text(plan.worst) << ")\n";
    out << "  disk:  " << human_bytes(plan.final_bytes) << " of weights that stay, up to "
        << human_bytes(plan.checkpoint_bytes) << " of checkpoints; "
        << human_bytes(static_cast<double>(plan.free_bytes)) << " free in "
        << workspace.out.string() << "\n";
  }
  print_warnings(out, style, launch, runs, plan);
  out << std::flush;
}

}  // namespace ablate
