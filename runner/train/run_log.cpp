#include "runner/train/run_log.h"

#include <nlohmann/json.hpp>

namespace ablate {

void RunLog::number(const std::string& name, std::int64_t step, double value,
                    const std::string& unit, Better better) {
  if (main_rank_) spool_.log(spool_.metric(name, unit, better), step, value);
}

void RunLog::timing(const std::string& name, std::int64_t step, double value,
                    const std::string& unit, Better better) {
  if (!main_rank_) return;
  spool_.log(spool_.metric(name, unit, better, MetricKind::Timing), step, value);
}

void RunLog::final_number(const std::string& name, std::int64_t step, double value,
                          const std::string& unit, Better better, MetricKind kind) {
  if (main_rank_) spool_.final_value(spool_.metric(name, unit, better, kind), step, value);
}

void RunLog::event(std::int64_t step, const std::string& kind, const nlohmann::json& body) {
  if (main_rank_) spool_.event(step, kind, body.dump());
}

}  // namespace ablate
