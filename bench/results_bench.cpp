// Speed of the results side: log calls on the training thread, ingest, and a table over 5,000 runs.
// Usage: results_bench [FOLDER]   (files go below it and are removed; default: the temporary
// folder)

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "results/curve.h"
#include "results/ingest.h"
#include "results/spool_writer.h"
#include "results/sqlite.h"
#include "results/table_query.h"
#include "runner/core/build_info.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kRuns = 40, kMetrics = 25, kSteps = 5000;
constexpr double kPoints = 1.0 * kRuns * kMetrics * kSteps;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

RegisteredRun run_of(const std::string& uid, int variant, int seed) {
  RegisteredRun run;
  run.run_uid = uid;
  run.config_hash = cat("config", variant);
  run.config_json =
      R"({"model": {"name": "vit_tiny_patch4_32"}, "training": {"precision": "fp32"}})";
  run.dataset = "synthetic";
  run.seed = static_cast<std::uint64_t>(seed);
  run.label = cat("row ", variant);
  run.row = variant;
  run.images_seen = 1000;
  return run;
}

// As a trainer would: 25 metrics a step, 20 of them in single precision like losses, 5 in double
// like times; but without pauses. Returns seconds a log call.
double log_run(const fs::path& folder, int index) {
  SpoolHeader header;
  header.run_uid = cat("run", index);
  // Training steps take longer than 25 log calls: the ring must not fill up here either.
  SpoolOptions options;
  options.ring_slots = std::size_t{kMetrics} * kSteps * 2;
  SpoolWriter writer(folder / cat(header.run_uid, ".spool"), header, options);
  std::vector<std::uint32_t> ids;
  for (int m = 0; m < kMetrics; ++m) ids.push_back(writer.metric(cat("metric", m)));
  const auto start = Clock::now();
  for (int step = 0; step < kSteps; ++step)
    for (const std::uint32_t id : ids) {
      const double value = 0.1 * step + id;
      writer.log(id, step, id < 20 ? static_cast<float>(value) : value);
    }
  const double elapsed = seconds_since(start);
  Outcome outcome;
  outcome.last_step = kSteps - 1;
  writer.outcome(outcome);
  writer.close();
  return elapsed / (1.0 * kMetrics * kSteps);
}

void bench_ingest(const fs::path& folder) {
  std::vector<RegisteredRun> runs;
  std::vector<double> calls;
  for (int r = 0; r < kRuns; ++r) {
    runs.push_back(run_of(cat("run", r), r, 0));
    calls.push_back(log_run(folder / "spools", r));
  }
  std::sort(calls.begin(), calls.end());
  std::printf("log call                  %8.0f ns   (median of %d runs; worst run %.0f ns)\n",
              calls[calls.size() / 2] * 1e9, kRuns, calls.back() * 1e9);
  ResultStore store(folder / "ingest.db");
  store.register_runs(runs);
  Ingester ingester(store);
  const auto start = Clock::now();
  const IngestReport report = ingester.ingest({folder / "spools"});
  const double elapsed = seconds_since(start);
  store.database().exec("PRAGMA wal_checkpoint(TRUNCATE)");
  std::printf(
      "ingest                    %8.0f k points/s   (%.1f M points, %.1f B/point at rest)\n",
      kPoints / elapsed / 1e3, static_cast<double>(report.points) / 1e6,
      static_cast<double>(fs::file_size(folder / "ingest.db")) / kPoints);
  const auto read = Clock::now();
  const std::size_t n = read_curve(store, "run7", "metric3").size();
  std::printf("curve of %zu points     %8.2f ms\n", n, seconds_since(read) * 1e3);
}

// Small steps of many runs, as a watching ingester sees them.
void bench_live_ingest(const fs::path& folder) {
  ResultStore store(folder / "live.db");
  store.register_runs(std::vector{run_of("live", 0, 0)});
  Ingester ingester(store);
  SpoolHeader header;
  header.run_uid = "live";
  SpoolWriter writer(folder / "live.spool", header);
  double elapsed = 0;
  constexpr int kLooks = 200, kStepsALook = 50;
  for (int look = 0; look < kLooks; ++look) {
    for (int m = 0; m < kMetrics; ++m)
      for (int step = 0; step < kStepsALook; ++step)
        writer.log(writer.metric(cat("metric", m)), look * kStepsALook + step, 0.1 * step);
    writer.flush();
    const auto start = Clock::now();
    ingester.ingest({folder / "live.spool"});
    elapsed += seconds_since(start);
  }
  writer.close();
  std::printf(
      "ingest of a live spool    %8.0f k points/s   (%d looks of %d points, %.1f ms each)\n",
      1.0 * kLooks * kStepsALook * kMetrics / elapsed / 1e3, kLooks, kStepsALook * kMetrics,
      elapsed / kLooks * 1e3);
}

void bench_table(const fs::path& folder) {
  constexpr int kVariants = 500, kSeeds = 10;
  ResultStore store(folder / "table.db");
  std::vector<RegisteredRun> runs;
  for (int seed = 0; seed < kSeeds; ++seed)
    for (int v = 0; v < kVariants; ++v) runs.push_back(run_of(cat(v, "-", seed), v, seed));
  store.register_sweep({"big", ""}, runs);
  SQLite::Database& db = store.database();
  SQLite::Transaction transaction(db);
  db.exec("INSERT INTO toolchain(hash, libtorch) VALUES ('h', '2.11.0')");
  for (int m = 0; m < kMetrics; ++m)
    execute(db, "INSERT INTO metric(name, unit, better) VALUES (?, '%', 1)", cat("metric", m));
  db.exec(
      "INSERT INTO final(run_id, metric_id, value, step) SELECT run_id, metric_id, "
      "50 + (run_id * 7919 + metric_id * 104729) % 1000 / 100.0, 99 FROM run, metric;"
      "INSERT INTO attempt(run_id, n, fence, toolchain_id, world_size, start_us, end_us) "
      "SELECT run_id, 1, 1, 1, 2, 0, 3600000000 FROM run;"
      "INSERT INTO bench(structure_hash, protocol, images_per_s) "
      "SELECT config_hash, 'infer', 1000 + variant_id FROM variant;"
      "UPDATE run SET state = 'done', structure_hash = (SELECT config_hash FROM variant "
      "WHERE variant.variant_id = run.variant_id)");
  transaction.commit();
  store.optimize();
  TableSpec spec;
  spec.columns = {"metric0", "metric1", "metric2", "images_per_s", "gpu_h"};
  std::vector<double> times;
  std::size_t rows = 0;
  const std::clock_t cpu = std::clock();  // what a machine of its own would take
  for (int i = 0; i < 15; ++i) {
    const auto start = Clock::now();
    rows = query_table(store, "big", spec).rows.size();
    times.push_back(seconds_since(start));
  }
  const double cpu_ms = 1e3 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / 15;
  const double first = times.front();  // with a cold page cache of the connection
  std::sort(times.begin(), times.end());
  std::printf(
      "table data of %d runs   %8.1f ms   (%zu rows x %zu columns, median of 15; first %.1f, best "
      "%.1f, CPU %.1f)\n",
      kVariants * kSeeds, times[times.size() / 2] * 1e3, rows, spec.columns.size(), first * 1e3,
      times.front() * 1e3, cpu_ms);
}

void bench(const fs::path& folder) {
  const BuildInfo& build = build_info();
  std::printf("%s, %u threads; %s; %s %s\n", cpu_name().c_str(),
              std::thread::hardware_concurrency(), build.version_line().c_str(),
              build.compiler.c_str(), build.flags.c_str());
  bench_ingest(folder);
  bench_live_ingest(folder);
  bench_table(folder);
}

}  // namespace
}  // namespace ablate

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  const fs::path base = argc > 1 ? fs::path(argv[1]) : fs::temp_directory_path();
  const fs::path folder = base / ("results-bench-" + std::to_string(::getpid()));
  try {
    fs::create_directories(folder);
    ablate::bench(folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "results_bench: %s\n", error.what());
  }
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}
