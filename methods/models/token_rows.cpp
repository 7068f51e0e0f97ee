#include "methods/models/token_rows.h"

namespace ablate {

at::Tensor flat_rows(const at::Tensor& positions, std::int64_t length) {
  const at::Tensor first = at::arange(positions.size(0), positions.options()) * length;
  return (positions + first.unsqueeze(1)).flatten();
}

at::Tensor take_tokens(const at::Tensor& x, const at::Tensor& numbers) {
  const at::Tensor rows = flat_rows(numbers, x.size(1)), from = x.flatten(0, 1);
  // On CUDA the backward of index adds up in order, that of index_select atomically; on CPUs the
  // latter is faster.
  const at::Tensor taken = x.is_cuda() ? from.index({rows}) : from.index_select(0, rows);
  return taken.view({x.size(0), numbers.size(1), x.size(2)});
}

}  // namespace ablate
