#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "runner/measure/protocol.h"

namespace ablate {

/// Rows of the bench table (keys = its columns) and the record of the protocol they were measured
/// under.
struct BenchReport {
  nlohmann::json record;
  std::vector<nlohmann::json> rows;
};

/// Name, device, data type, batch, threads, rounds, CPU, versions and load of the machine.
nlohmann::json protocol_record(const Protocol& protocol, std::int64_t warm_up, std::int64_t rounds);

/// Rows as a table on standard error, everything as JSON on standard output.
void print_report(const BenchReport& report, const std::vector<std::string>& labels);

/// Writes the rows as a sealed spool of the run's bench job `attempt` (0 and below).
void write_bench_spool(const BenchReport& report, const std::filesystem::path& file,
                       const std::string& run_uid, int attempt);

}  // namespace ablate
