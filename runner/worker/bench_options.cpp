#include "runner/worker/bench_options.h"

#include <algorithm>

#include <CLI/CLI.hpp>

#include "runner/core/error.h"
#include "runner/measure/cuda_devices.h"
#include "runner/worker/data_options.h"
#include "runner/worker/torch_switches.h"

namespace ablate {
namespace {

void add_measuring_options(CLI::App& app, BenchOptions& options) {
  app.add_option("--protocol", options.kind,
                 "infer: forward passes; train: whole steps with AdamW. With type and batch it "
                 "names the protocol: infer-fp32-b128")
      ->check(CLI::IsMember({"infer", "train"}))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Images of a repetition")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--device", options.device,
                 "cpu, or cuda: --dtype bf16 for fused operations, fp32 for plain ones")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "fp32, fp64 or bf16")
      ->check(CLI::IsMember({"fp32", "fp64", "bf16"}))
      ->capture_default_str();
  app.add_option("--wire", options.wire,
                 "Of several ranks on devices: fp32 or bf16, the format in which they exchange "
                 "gradients")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--budget-seconds", options.timing.budget_seconds, "Time for timed repetitions")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--warm-up", options.timing.warm_up, "Repetitions before the timed ones")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--memory-budget-mib", options.memory_budget_mib,
                 "Find the largest batch whose peak of tensor memory stays below; 0: do not")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--max-batch", options.largest_batch,
               "Find the largest batch that the device's memory holds, by trying");
  app.add_flag("--ideal", options.ideal,
               "Measure the dense branches alone, too: what part of the saving that the fewer "
               "tokens and branches are worth is reached (share_of_ideal)");
  app.add_flag("--class-token-block", options.class_token_block,
               "Run the last block's MLP for the tokens that heads read: exact, another cost");
  app.add_flag("--plain-attention", options.plain_attention,
               "Keep LibTorch from fusing the attention of plain operations");
  app.add_option("--profile", options.profile,
                 "Record a few repetitions: Chrome trace to this file, device time by class of "
                 "kernel to the table and the spool")
      ->type_name("FILE");
}

}  // namespace

void add_bench_options(CLI::App& app, BenchOptions& options) {
  app.add_option("--structure", options.structure,
                 "final/structure.json of a run, or a resolved spec.json; or else --model")
      ->check(CLI::ExistingFile);
  app.add_option("--against", options.against, "The baseline, measured in turns with it")
      ->check(CLI::ExistingFile);
  add_model_options(app, options.model);
  app.add_option("--against-methods", options.against_methods,
                 "The baseline: the same --model with these methods; '[]' for none")
      ->needs("--model")
      ->excludes("--against");
  add_data_option(app, options.data);
  add_measuring_options(app, options);
  auto* run = app.add_option("--run", options.run_uid, "Run that the spool's rows came from");
  app.add_option("--out-spool", options.out_spool, "Spool file for `ablate ingest`; must not exist")
      ->needs(run);
  app.add_option("--attempt", options.attempt, "Number of the bench job, 0 and below")
      ->check(CLI::Range(-1'000'000, 0))
      ->capture_default_str();
}

void check_options(const BenchOptions& options) {
  if (options.structure.empty() == options.model.model.empty()) {
    throw SpecError(
        "what is to be measured? Give --structure FILE or --model NAME, or one of the parts "
        "`input`, `loader` and `comm`; `ablate-train bench --help` has examples");
  }
  if (!options.on_device() && options.dtype == "bf16") {
    throw SpecError("--dtype bf16 is for --device cuda, where fused operations are bfloat16");
  }
  if (options.on_device() && options.dtype == "fp64") {
    throw SpecError("--device cuda takes --dtype bf16 (fused operations) or fp32 (plain ones)");
  }
  if (options.ideal && (!options.on_device() || !options.compares())) {
    throw SpecError("--ideal is for --device cuda with a baseline: --against or --against-methods");
  }
  if (options.on_device() && options.memory_budget_mib > 0) {
    throw SpecError("--memory-budget-mib is for --device cpu; on a device use --max-batch");
  }
  if (options.largest_batch && !options.on_device()) {
    throw SpecError("--max-batch is for --device cuda; on the CPU give --memory-budget-mib");
  }
  if (options.on_device() && ABLATE_HAS_CUDA == 0) {
    throw SpecError("--device cuda: this program was built without CUDA");
  }
  if (options.on_device()) find_cuda_device(options.device);  // says what is wrong, if so
}

Structure measured_structure(const BenchOptions& options) {
  Structure structure = options.structure.empty()
                            ? options.model.structure_with(options.model.methods)
                            : read_structure(options.structure, parse_data_roots(options.data));
  if (options.class_token_block) {
    const auto& offers = Registry<ModelInfo>::get(structure.model.name).offers;
    if (std::ranges::find(offers, Slot::TokenReducer) == offers.end()) {
      throw SpecError(cat("--class-token-block: ", structure.model.name,
                          " needs all tokens of its last block"));
    }
    const std::shared_ptr<Model> model = build_model(structure, at::kFloat, 0);
    const int depth = static_cast<int>(std::ssize(model->blocks()));
    Surgeon surgeon(*model);
    surgeon.apply(InsertReducer{depth - 1, "class_token", {}});
    structure.edits.push_back(surgeon.edits().back());
  }
  return structure;
}

Structure baseline_structure(const BenchOptions& options) {
  return options.against.empty() ? options.model.structure_with(options.against_methods)
                                 : read_structure(options.against, parse_data_roots(options.data));
}

void set_switches(const BenchOptions& options) {
  set_torch_switches(options.threads);
  if (!options.plain_attention) return;
  at::globalContext().setSDPUseFlash(false);
  at::globalContext().setSDPUseMemEfficient(false);
  at::globalContext().setSDPUseCuDNN(false);
}

}  // namespace ablate
