#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/bfloat16.h"
#include "runner/core/random.h"
#include "runner/core/text.h"

namespace ablate::kernels::test {

/// Normal values of the given spread, rounded to T; `key` names the stream.
template <typename T>
std::vector<T> normal_values(std::size_t count, std::uint64_t key, double spread = 1.0,
                             double mean = 0.0) {
  RandomStream stream(key, Purpose::Test);
  std::vector<T> values(count);
  for (T& value : values)
    value = from_float<T>(static_cast<float>(mean + spread * stream.normal()));
  return values;
}

template <typename T>
std::vector<float> as_floats(const std::vector<T>& values) {
  std::vector<float> floats(values.size());
  std::ranges::transform(values, floats.begin(), [](T value) { return to_float(value); });
  return floats;
}

/// Half the distance between neighbouring values of T, relative: what one rounding may cost.
template <typename T>
constexpr double rounding_of() {
  return sizeof(T) == 2 ? 0x1p-8 : 0x1p-24;
}

/// What a DeviceBuffer holds before anything is written: all bits set.
template <typename T>
std::vector<T> poison(std::size_t count) {
  std::vector<T> values(count);
  if (count > 0) std::memset(static_cast<void*>(values.data()), 0xff, count * sizeof(T));
  return values;
}

/// |actual - expected| <= absolute + relative |expected|, or equal bits (untouched poison), for all
/// elements; says how many are off and shows the worst.
template <typename T>
::testing::AssertionResult all_close(const std::vector<T>& actual, const std::vector<T>& expected,
                                     double absolute, double relative) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " elements, expected " << expected.size();
  }
  std::size_t wrong = 0, worst = 0, first = 0;
  double worst_excess = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double got = to_float(actual[i]);
    const double want = to_float(expected[i]);
    const double excess = std::abs(got - want) - (absolute + relative * std::abs(want));
    if (got == want || excess <= 0.0) continue;
    if (std::memcmp(&actual[i], &expected[i], sizeof(T)) == 0) continue;
    if (wrong++ == 0) first = i;
    if (std::isnan(worst_excess)) continue;
    if (std::isnan(excess) || excess > worst_excess) {
      worst_excess = excess;
      worst = i;
    }
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << wrong << " of " << actual.size() << " elements differ; the first at " << first << ": "
         << to_float(actual[first]) << ", expected " << to_float(expected[first])
         << "; the worst at " << worst << ": " << to_float(actual[worst]) << ", expected "
         << to_float(expected[worst]);
}

/// Equal bits, NaNs included.
template <typename T>
::testing::AssertionResult same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " elements";
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) {
      return ::testing::AssertionFailure() << "bits differ, first at element " << i;
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace ablate::kernels::test
