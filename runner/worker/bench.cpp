#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "distributed/launcher.h"
#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "runner/measure/throughput.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_evidence.h"
#include "runner/worker/bench_ideal.h"
#include "runner/worker/bench_options.h"
#include "runner/worker/bench_part.h"
#include "runner/worker/bench_ranks.h"
#include "runner/worker/bench_report.h"
#include "runner/worker/bench_subject.h"
#include "runner/worker/ranks.h"
#include "runner/worker/verb.h"

namespace ablate::worker::bench {
namespace {

using nlohmann::json;

/// Timed in turns; both models live meanwhile.
std::vector<std::vector<double>> time_structures(const std::vector<Structure>& structures,
                                                 const BenchOptions& options) {
  std::vector<std::unique_ptr<BenchSubject>> subjects;
  std::vector<std::function<void()>> runs;
  for (const Structure& structure : structures) {
    subjects.push_back(std::make_unique<BenchSubject>(structure, options.protocol()));
    runs.emplace_back([subject = subjects.back().get()] { subject->repeat(); });
  }
  return time_in_turns(runs, options.timing);
}

/// The same on a CUDA device; a run is a window of many repetitions.
std::vector<std::vector<double>> time_on_device(const std::vector<Structure>& structures,
                                                const BenchOptions& options) {
  std::vector<std::vector<double>> seconds;
  if constexpr (ABLATE_HAS_CUDA) {
    std::vector<std::unique_ptr<DeviceBenchSubject>> subjects;
    std::vector<std::function<void()>> runs;
    std::vector<double> windows;
    for (const Structure& structure : structures) {
      subjects.push_back(std::make_unique<DeviceBenchSubject>(structure, options.protocol()));
      windows.push_back(static_cast<double>(subjects.back()->window()));
      runs.emplace_back([subject = subjects.back().get()] { subject->run_window(); });
    }
    seconds = time_in_turns(runs, options.timing);
    for (std::size_t i = 0; i < seconds.size(); ++i) {
      for (double& value : seconds[i]) value /= windows[i];
    }
  }
  return seconds;
}

std::int64_t measure_peak(const Structure& structure, const Protocol& protocol) {
  if constexpr (ABLATE_HAS_CUDA) {
    if (protocol.device != "cpu") {
      reset_device_peak();
      const DeviceBenchSubject subject(structure, protocol);
      return device_peak_bytes();
    }
  }
  return peak_bytes(structure, protocol);
}

json measure_row(const Structure& structure, const std::vector<double>& seconds,
                 const BenchOptions& options) {
  const Protocol protocol = options.protocol();
  const Spread spread = Spread::of(seconds);
  const auto model = build_model(structure, at::kFloat, 0);
  const ModelCost cost = measure_cost(*model);
  json row = {{"structure_hash", structure.hash()},
              {"protocol", protocol.name()},
              {"device", protocol.device},
              {"dtype", protocol.dtype},
              {"batch", protocol.batch},
              {"resolution", model->image_size()},
              {"threads", protocol.threads},
              {"images_per_s", static_cast<double>(protocol.batch) / spread.median},
              {"p50_ms", 1e3 * spread.median},
              {"p99_ms", 1e3 * spread.p99},
              {"spread", spread.spread},
              {"peak_bytes", measure_peak(structure, protocol)},
              {"macs", cost.macs},
              {"params", cost.parameters},
              {"reps", seconds.size()}};
  if (options.memory_budget_mib > 0) {
    const std::int64_t budget = options.memory_budget_mib << 20;
    row["max_batch"] = max_batch(structure, protocol, budget);
    row["memory_budget"] = budget;
  }
  add_utilisation(row, protocol);
  if (options.largest_batch) add_largest_batch(row, structure, protocol);
  return row;
}

void add_comparison(json& row, const Structure& baseline,
                    const std::vector<std::vector<double>>& seconds) {
  const Spread ratio = Spread::of(speed_ratios(seconds[0], seconds[1]));
  row["baseline_hash"] = baseline.hash();
  row["ratio"] = ratio.median;
  row["ratio_spread"] = ratio.spread;
}

void check_for_ranks(const BenchOptions& options) {
  check_options(options);
  if (options.kind != "train" || options.compares() || !options.out_spool.empty()) {
    throw SpecError(
        "several ranks measure --protocol train of one structure, without --against and "
        "--out-spool; all else is measured by one rank: start it without a launcher");
  }
  if (options.wire != "fp32" && !options.on_device()) {
    throw SpecError(
        "--wire bf16 is for --device cuda; on the CPU ranks exchange what they compute");
  }
}

/// What the difference to the baseline is of what it could be.
void add_ideal(json& row, const std::vector<Structure>& structures, const BenchOptions& options) {
  if constexpr (ABLATE_HAS_CUDA) {
    const BranchCosts costs = measure_branches(structures[1], options.protocol(), options.timing);
    const double ideal =
        ideal_saving(block_tokens(structures[0]), block_tokens(structures[1]), costs);
    const double base_ms = row.at("p50_ms").get<double>() * row.at("ratio").get<double>();
    const double saved_ms = base_ms - row.at("p50_ms").get<double>();
    row["attention_branch_ms"] = 1e3 * costs.attention;
    row["mlp_branch_ms"] = 1e3 * costs.mlp;
    row["ideal_ms"] = base_ms - 1e3 * ideal;
    row["share_of_ideal"] = saved_ms / (1e3 * ideal);
  }
}

/// One row for all ranks; its protocol has their number.
int bench_on_ranks(const BenchOptions& options, Communicator& world) {
  check_for_ranks(options);
  set_switches(options);
  const Structure structure = measured_structure(options);
  const RankTimes times =
      time_training_on_ranks(structure, options.protocol(), options.timing, world);
  if (world.rank() != 0) return static_cast<int>(ExitCode::Done);
  json row = measure_row(structure, times.seconds, options);
  row["protocol"] = cat(options.protocol().name(), "-x", world.size());
  row["images_per_s"] = row.at("images_per_s").get<double>() * world.size();
  row["world_size"] = world.size();
  row["scaling"] = times.scaling;
  BenchReport report{.record = protocol_record(options.protocol(), options.timing.warm_up,
                                               std::ssize(times.seconds)),
                     .rows = {row}};
  report.record["world_size"] = world.size();
  std::cerr << world.size() << " ranks together: " << 100 * times.scaling
            << " % of the speed that they have alone\n";
  print_report(report, {"structure"});
  return static_cast<int>(ExitCode::Done);
}

int bench(const BenchOptions& options) {
  check_options(options);
  if (options.wire != "fp32") {
    throw SpecError(
        "--wire is for several ranks: start them by mpirun, or by scripts/ranks 2 ablate-train "
        "bench ...");
  }
  set_switches(options);
  std::vector<Structure> structures{measured_structure(options)};
  std::vector<std::string> labels{"structure"};
  if (options.compares()) {
    structures.push_back(baseline_structure(options));
    labels.emplace_back("against");
  }
  const auto seconds = options.on_device() ? time_on_device(structures, options)
                                           : time_structures(structures, options);
  BenchReport report{
      .record = protocol_record(options.protocol(), options.timing.warm_up, std::ssize(seconds[0])),
      .rows = {}};
  for (std::size_t i = 0; i < structures.size(); ++i) {
    report.rows.push_back(measure_row(structures[i], seconds[i], options));
  }
  if (structures.size() > 1) add_comparison(report.rows[0], structures[1], seconds);
  if (options.ideal) add_ideal(report.rows[0], structures, options);
  if (!options.profile.empty()) {
    report.record["profile"] =
        profile_structure(structures[0], options.protocol(), options.profile);
  }
  print_report(report, labels);
  if (!options.out_spool.empty()) {
    write_bench_spool(report, options.out_spool, options.run_uid, options.attempt);
  }
  return static_cast<int>(ExitCode::Done);
}

const Registry<Verb>::Add added{{
    .name = "bench",
    .summary =
        "Speed and memory of a structure, alone on the machine; input; loader; communication",
    .examples =
        "  Protocols: infer-fp32-b<N> (forward passes) and train-fp32-b<N> (whole steps), also "
        "fp64.\n"
        "  ablate-train bench --structure out/runs/<id>/final/structure.json --protocol infer \\\n"
        "    --against out/runs/<other>/final/structure.json --batch 128 --budget-seconds 30\n"
        "  ablate-train bench --structure out/runs/<id>/final/structure.json --protocol train \\\n"
        "    --memory-budget-mib 2048\n"
        "  ablate-train bench --structure out/runs/<id>/final/structure.json --protocol train \\\n"
        "    --device cuda --dtype bf16 --max-batch --profile trace.json\n"
        "  ablate-train bench --model deit_small_patch16_224 --methods '[{ name = \"tome\", r = 13 "
        "}]' \\\n"
        "    --against-methods '[]' --ideal --protocol train --device cuda --dtype bf16\n"
        "  ablate-train bench loader run.toml --data cifar100=DIR --loader-threads 2\n"
        "  ablate-train bench input run.toml --data packed=DIR --device cuda\n"
        "  mpirun -n 2 ablate-train bench --structure out/runs/<id>/final/structure.json \\\n"
        "    --protocol train --device cuda --dtype bf16      # all ranks together and alone\n"
        "  mpirun -n 2 ablate-train bench comm --max-mib 64\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto options = std::make_shared<BenchOptions>();
      add_bench_options(app, *options);
      const auto parts = std::make_shared<std::vector<BenchPart>>();
      parts->push_back(add_bench_input(app));
      parts->push_back(add_bench_loader(app));
      parts->push_back(add_bench_comm(app));
      return [options, parts] {
        for (const BenchPart& part : *parts) {
          if (part.app->parsed()) return part.run();
        }
        if (!started_by_launcher() && !rendezvous_of_environment()) return bench(*options);
        return run_as_rank([&](Communicator& world) { return bench_on_ranks(*options, world); });
      };
    },
}};

}  // namespace
}  // namespace ablate::worker::bench
