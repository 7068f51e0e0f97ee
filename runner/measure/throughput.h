#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace ablate {

struct TimingOptions {
  double budget_seconds = 20;  ///< of all timed rounds; warm-up comes on top
  std::int64_t warm_up = 3;    ///< rounds whose times are thrown away
  std::int64_t min_rounds = 5;
  std::int64_t max_rounds = 10'000;
};

/// Seconds of some clock that only rises.
using SecondsClock = std::function<double()>;
double steady_seconds();

/// Runs the subjects in turns, A B A B ..., so that whatever else the machine does meets all of
/// them alike, until the budget is used up. Returns the seconds of every timed run, a list a
/// subject, all of one length.
std::vector<std::vector<double>> time_in_turns(const std::vector<std::function<void()>>& subjects,
                                               const TimingOptions& options,
                                               const SecondsClock& clock = steady_seconds);

/// The q-quantile, linear between the order statistics (type 7 of Hyndman and Fan, 1996). Not
/// empty.
double quantile(std::vector<double> values, double q);

/// What tables say about a list of measurements.
struct Spread {
  double median = 0, p99 = 0;
  double spread = 0;  ///< interquartile range over median

  static Spread of(const std::vector<double>& values);
};

/// How much faster a subject is than its baseline: baseline seconds / subject seconds of each
/// round.
std::vector<double> speed_ratios(const std::vector<double>& subject,
                                 const std::vector<double>& baseline);

}  // namespace ablate
