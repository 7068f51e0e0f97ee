#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include "methods/kernels/batch_norm.h"
#include "tests/kernels/values.h"

namespace ablate::kernels::test {

inline std::ostream& print_shape(std::ostream& out, const BatchNormShape& shape) {
  return out << shape.groups << " groups x " << shape.rows << " rows x " << shape.channels;
}

inline std::size_t elements(const BatchNormShape& shape) {
  return static_cast<std::size_t>(shape.groups * shape.rows * shape.channels);
}

/// Tables in host memory.
struct HostTables {
  explicit HostTables(const BatchNormShape& size)
      : shape(size), memory(static_cast<std::size_t>(BatchNormTables::kCount * size.values())) {}
  BatchNormTables tables() { return BatchNormTables::in(memory.data(), shape); }

  BatchNormShape shape;
  std::vector<float> memory;
};

/// Inputs of a normalisation with channels of different mean and spread, one of them constant, and
/// its tables by the reference.
struct NormInputs {
  explicit NormInputs(const BatchNormShape& size, std::uint64_t key = 1)
      : shape(size),
        x(normal_values<bfloat16>(elements(size), key)),
        gamma(normal_values<float>(static_cast<std::size_t>(size.channels), key + 100, 0.5, 1.0)),
        beta(normal_values<float>(static_cast<std::size_t>(size.channels), key + 200, 0.5)),
        known(size) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t channel = i % static_cast<std::size_t>(shape.channels);
      const auto scale = static_cast<float>(channel % 5);  // 0: a constant
      const auto offset = static_cast<float>(channel % 7) * 3.0F - 9.0F;
      x[i] = from_float<bfloat16>(scale * to_float(x[i]) + offset);
    }
    reference::batch_norm_statistics(statistics(known.tables()));
  }

  BatchNormStatistics statistics(const BatchNormTables& tables) const {
    return {.shape = shape,
            .x = x.data(),
            .gamma = gamma.data(),
            .beta = beta.data(),
            .tables = tables};
  }

  BatchNormShape shape;
  std::vector<bfloat16> x;
  std::vector<float> gamma, beta;
  HostTables known;
};

}  // namespace ablate::kernels::test
