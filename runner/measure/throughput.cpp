#include "runner/measure/throughput.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "runner/core/error.h"

namespace ablate {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::vector<double>> time_in_turns(const std::vector<std::function<void()>>& subjects,
                                               const TimingOptions& options,
                                               const SecondsClock& clock) {
  ABLATE_CHECK(!subjects.empty() && options.min_rounds > 0);
  for (std::int64_t round = 0; round < options.warm_up; ++round) {
    for (const auto& run : subjects) run();
  }
  std::vector<std::vector<double>> seconds(subjects.size());
  const double begin = clock();
  for (std::int64_t round = 0; round < options.max_rounds; ++round) {
    if (round >= options.min_rounds && clock() - begin >= options.budget_seconds) break;
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      const double start = clock();
      subjects[i]();
      seconds[i].push_back(clock() - start);
    }
  }
  return seconds;
}

double quantile(std::vector<double> values, double q) {
  ABLATE_CHECK(!values.empty() && q >= 0 && q <= 1);
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - std::floor(place)) * (values[above] - values[below]);
}

Spread Spread::of(const std::vector<double>& values) {
  const double median = quantile(values, 0.5);
  return {.median = median,
          .p99 = quantile(values, 0.99),
          .spread = (quantile(values, 0.75) - quantile(values, 0.25)) / median};
}

std::vector<double> speed_ratios(const std::vector<double>& subject,
                                 const std::vector<double>& baseline) {
  ABLATE_CHECK(subject.size() == baseline.size(), subject.size(), " rounds and ", baseline.size());
  std::vector<double> ratios;
  for (std::size_t i = 0; i < subject.size(); ++i) ratios.push_back(baseline[i] / subject[i]);
  return ratios;
}

}  // namespace ablate
