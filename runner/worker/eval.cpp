#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/train/evaluate.h"
#include "runner/train/finals.h"
#include "runner/train/run_data.h"
#include "runner/worker/data_options.h"
#include "runner/worker/finished_run.h"
#include "runner/worker/prediction_files.h"
#include "runner/worker/ranks.h"
#include "runner/worker/torch_switches.h"
#include "runner/worker/verb.h"

namespace ablate::worker::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct EvalOptions {
  fs::path run;
  std::vector<std::string> data;
  std::string split = "test";
  fs::path predictions;
  bool ema = false;
  std::int64_t batch = 0;
  int threads = 1, loader_threads = 1;
};

json metrics_json(const Evaluation& evaluation) {
  json metrics = json::object();
  for (const TaskMetric& metric : evaluation.metrics) metrics[metric.name] = metric.value;
  return metrics;
}

void print(const json& report, const Evaluation& evaluation) {
  std::cerr << report.at("split").get<std::string>() << ", " << report.at("n") << " images:";
  for (const TaskMetric& metric : evaluation.metrics) {
    std::cerr << "  " << metric.name << " " << metric.value << " " << metric.unit;
  }
  std::cerr << "\n";
  std::cout << report.dump(1) << std::endl;
}

int eval_rank(const EvalOptions& options, Communicator& world) {
  set_torch_switches(options.threads);
  const FinishedRun folder = FinishedRun::find(options.run);
  const RunSpec& spec = folder.spec;
  const TrainingOptions training = folder.options(options.batch, world.size());
  const RunData data(
      spec, training,
      {.data = parse_data_roots(options.data), .loader_threads = options.loader_threads},
      {.rank = world.rank(), .size = world.size()});
  const at::ScalarType dtype = training.precision == "fp64" ? at::kDouble : at::kFloat;
  const std::shared_ptr<Model> model =
      load_final_model(read_finals(folder.finals), options.ema, dtype);
  const auto task = make_task(spec.task, data.splits().train->facts());
  const auto split = choose_split(data.splits(), options.split);
  const auto batches = data.eval_batches(split, at::kCPU);
  const auto forward = make_plain_forward(*model, dtype, at::kCPU);
  std::optional<PredictionFiles> files;
  EvalObserver observer;
  if (!options.predictions.empty()) {
    files.emplace(options.predictions, split);
    observer = [&](const Batch& batch, const at::Tensor& output) { files->add(batch, output); };
  }
  const Evaluation evaluation =
      evaluate(*model, *forward, *task, *batches, split->size(), at::kCPU, world, observer);
  if (files && world.rank() == 0) files->write_sheet();
  if (world.rank() == 0) {
    json report{{"run", spec.id()},
                {"dataset", spec.dataset.name},
                {"split", options.split},
                {"n", split->size()},
                {"weights", options.ema ? "ema" : "raw"},
                {"metrics", metrics_json(evaluation)}};
    if (!evaluation.details.is_null()) report["details"] = evaluation.details;
    print(report, evaluation);
  }
  return static_cast<int>(ExitCode::Done);
}

void add_options(CLI::App& app, EvalOptions& options) {
  app.add_option("run", options.run, "Folder of a finished run: out/runs/<id>, or its final")
      ->required()
      ->check(CLI::ExistingDirectory);
  add_data_option(app, options.data);
  app.add_option("--split", options.split, "test, holdout or train (without augmentation)")
      ->check(CLI::IsMember({"test", "holdout", "train"}))
      ->capture_default_str();
  app.add_flag("--ema", options.ema, "The run's weight average instead of its raw weights");
  app.add_option("--predictions", options.predictions,
                 "Folder for a PNG of each image's predicted classes, and a sheet of overlays");
  app.add_option("--batch", options.batch, "Images of one pass on all ranks; 0: as in training")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--threads", options.threads, "Threads of a rank's tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--loader-threads", options.loader_threads, "Decoding threads of a rank")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

const Registry<Verb>::Add added{{
    .name = "eval",
    .summary = "A finished run's weights on a split of its data set; JSON on standard output",
    .examples = "  ablate-train eval out/runs/<id> --data cifar100=DIR\n"
                "  mpirun -n 2 ablate-train eval out/runs/<id> --split holdout --ema\n"
                "  ablate-train eval out/runs/<id> --data ade20k=DIR --predictions maps\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto options = std::make_shared<EvalOptions>();
      add_options(app, *options);
      return [options] {
        return run_as_rank([&](Communicator& world) { return eval_rank(*options, world); });
      };
    },
}};

}  // namespace
}  // namespace ablate::worker::eval
