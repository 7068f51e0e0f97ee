#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "results/spool_writer.h"

namespace ablate {

/// The numbers of a run on one rank. Values are reduced over ranks before they come here, so only
/// rank 0 writes them; the calls are made by all ranks.
class RunLog {
 public:
  RunLog(SpoolWriter& spool, bool main_rank) : spool_(spool), main_rank_(main_rank) {}

  /// A number that is the same in every repetition of the run.
  void number(const std::string& name, std::int64_t step, double value,
              const std::string& unit = "", Better better = Better::Neither);
  /// A measurement of time.
  void timing(const std::string& name, std::int64_t step, double value, const std::string& unit,
              Better better = Better::Lower);
  /// The value a table shows, whatever the metric's rule.
  void final_number(const std::string& name, std::int64_t step, double value,
                    const std::string& unit = "", Better better = Better::Neither,
                    MetricKind kind = MetricKind::Deterministic);
  void event(std::int64_t step, const std::string& kind, const nlohmann::json& body);

  bool main_rank() const { return main_rank_; }
  SpoolWriter& spool() { return spool_; }

 private:
  SpoolWriter& spool_;
  bool main_rank_;
};

}  // namespace ablate
