#include "runner/worker/bench_report.h"

#include <cstdlib>
#include <iomanip>
#include <iostream>

#include "results/spool_writer.h"
#include "runner/train/facts.h"

namespace ablate {

using nlohmann::json;

json protocol_record(const Protocol& protocol, std::int64_t warm_up, std::int64_t rounds) {
  json record = {{"protocol", protocol.name()},
                 {"device", protocol.device},
                 {"dtype", protocol.dtype},
                 {"batch", protocol.batch},
                 {"threads", protocol.threads},
                 {"warm_up", warm_up},
                 {"rounds", rounds},
                 {"toolchain", toolchain_facts(protocol.device)},
                 {"machine", machine_facts(".", protocol.device)}};
  double load = 0;
  if (getloadavg(&load, 1) == 1) record["load_average"] = load;
  return record;
}

namespace {

constexpr double kMiB = 1 << 20;

void print_number(const json& row, const char* key, double factor, int digits) {
  std::cerr << std::setw(14) << std::fixed << std::setprecision(digits);
  if (row.contains(key) && row.at(key).is_number()) {
    std::cerr << row.at(key).get<double>() * factor;
  } else {
    std::cerr << "-";
  }
}

std::string hardware_of(const json& record) {
  const json& machine = record.at("machine");
  return machine.value("gpu_model", machine.at("cpu").get<std::string>());
}

}  // namespace

void print_report(const BenchReport& report, const std::vector<std::string>& labels) {
  std::cerr << report.record.at("protocol").get<std::string>() << ", " << report.record.at("rounds")
            << " rounds, " << hardware_of(report.record) << "\n"
            << std::setw(10) << "";
  for (const char* title : {"images/s", "p50 ms", "p99 ms", "spread %", "peak MiB", "max batch",
                            "ratio", "params M", "GMACs", "MFU %"}) {
    std::cerr << std::setw(14) << title;
  }
  std::cerr << "\n";
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const json& row = report.rows[i];
    std::cerr << std::left << std::setw(10) << labels[i] << std::right;
    print_number(row, "images_per_s", 1, 1);
    print_number(row, "p50_ms", 1, 2);
    print_number(row, "p99_ms", 1, 2);
    print_number(row, "spread", 100, 1);
    print_number(row, "peak_bytes", 1 / kMiB, 1);
    print_number(row, "max_batch", 1, 0);
    print_number(row, "ratio", 1, 3);
    print_number(row, "params", 1e-6, 3);
    print_number(row, "macs", 1e-9, 3);
    print_number(row, "mfu", 100, 1);
    std::cerr << "\n";
  }
  std::cout << json{{"record", report.record}, {"rows", report.rows}}.dump(1) << std::endl;
}

void write_bench_spool(const BenchReport& report, const std::filesystem::path& file,
                       const std::string& run_uid, int attempt) {
  SpoolWriter spool(file, {.run_uid = run_uid, .attempt = attempt});
  spool.facts(FactKind::Machine, report.record.at("machine").dump());
  spool.facts(FactKind::Toolchain, report.record.at("toolchain").dump());
  spool.facts(
      FactKind::Environment,
      json{{"world_size", 1}, {"threads", report.record.at("threads")}, {"runs_in_process", 1}}
          .dump());
  spool.event(0, "bench", report.record.dump());
  for (const json& row : report.rows) spool.bench({row.dump()});
  spool.outcome({});
  spool.close();
}

}  // namespace ablate
