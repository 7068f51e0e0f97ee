#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include <gtest/gtest.h>

#include "runner/measure/mac_counter.h"
#include "tests/methods/mrla_support.h"

namespace ablate::test {

/// What was counted on somebody's public model.
struct PublishedSize {
  const char *model, *method;
  std::int64_t classes, parameters;
  double mega_macs = 0;  ///< 0: not looked at
};

/// Expects the parameters of every row, and hands those with costs on, with what ours costs.
inline void expect_published_sizes(
    std::span<const PublishedSize> rows,
    const std::function<void(const PublishedSize& row, double mega_macs)>& expect_cost) {
  for (const PublishedSize& row : rows) {
    SCOPED_TRACE(cat(row.model, " ", row.method, " ", row.classes));
    const auto model = make_model(row.model, "", row.classes);
    apply_methods(*model, {cat("name = '", row.method, "'")});
    EXPECT_EQ(parameter_count(*model), row.parameters);
    if (row.mega_macs == 0) continue;
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) parameter.zero_();
    expect_cost(row, static_cast<double>(measure_cost(*model).macs) / 1e6);
  }
}

}  // namespace ablate::test
