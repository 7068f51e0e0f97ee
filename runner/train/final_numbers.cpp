#include "runner/train/final_numbers.h"

#include "runner/measure/mac_counter.h"

namespace ablate {
namespace {

/// One bit a sample, the first in the lowest bit of the first byte.
SampleBits pack(const at::Tensor& correct, std::int64_t step) {
  SampleBits bits{.kind = "top1", .step = step, .n = correct.size(0), .bits = {}};
  bits.bits.resize(static_cast<std::size_t>(bits.n + 7) / 8);
  const auto* right = correct.const_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < bits.n; ++i) {
    if (right[i]) bits.bits[static_cast<std::size_t>(i / 8)] |= static_cast<char>(1 << (i % 8));
  }
  return bits;
}

void report_cost(RunLog& log, std::int64_t step, const ModelCost& cost) {
  const auto parameters = static_cast<double>(cost.parameters);
  const auto macs = static_cast<double>(cost.macs);
  log.final_number("params", step, parameters, "", Better::Lower);
  log.final_number("params_m", step, parameters / 1e6, "M", Better::Lower);
  log.final_number("macs", step, macs, "", Better::Lower);
  log.final_number("gmacs", step, macs / 1e9, "G", Better::Lower);
  log.final_number("tokens_final", step, static_cast<double>(cost.final_tokens));
}

}  // namespace

void report_finals(RunLog& log, std::int64_t step, const Evaluation& test, Model& model) {
  for (const TaskMetric& metric : test.metrics) {
    log.final_number(metric.name, step, metric.value, metric.unit,
                     static_cast<Better>(metric.better));
  }
  if (!log.main_rank()) return;
  report_cost(log, step, measure_cost(model));
  if (test.correct.defined()) log.spool().bits(pack(test.correct, step));
  if (!test.details.is_null()) log.event(step, "evaluated", test.details);
}

}  // namespace ablate
