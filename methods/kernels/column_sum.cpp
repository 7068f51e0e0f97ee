#include "methods/kernels/column_sum.h"

namespace ablate::kernels::reference {

template <typename T>
void column_sum(const ColumnSum<T>& arguments) {
  for (std::int64_t column = 0; column < arguments.width; ++column) {
    double sum = 0.0;
    for (std::int64_t row = 0; row < arguments.rows; ++row) {
      sum += to_float(arguments.values[row * arguments.width + column]);
    }
    arguments.sums[column] = static_cast<float>(arguments.sums[column] + sum);
  }
}

template void column_sum(const ColumnSum<float>&);
template void column_sum(const ColumnSum<bfloat16>&);

}  // namespace ablate::kernels::reference
