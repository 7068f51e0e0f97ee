#include "runner/train/training_options.h"

#include "runner/core/error.h"

namespace ablate {

TrainingOptions TrainingOptions::read(Params& run) {
  constexpr std::int64_t kMany = 1'000'000;
  TrainingOptions options;
  options.steps = run.integer("steps", 0, 0, std::int64_t{1} << 40,
                              "length in optimizer steps, instead of epochs; 0: epochs say it");
  const char* const epochs = "passes over the training set; 0 evaluates only";
  options.epochs = options.steps > 0 ? run.integer("epochs", 0, 0, std::int64_t{1} << 40, epochs)
                                     : run.required_integer("epochs", 0, kMany, epochs);
  options.global_batch =
      run.integer("global_batch", 128, 1, kMany, "images an optimizer step sees, over all ranks");
  options.mix_group = run.integer(
      "mix_group", 32, 2, kMany, "mixup and cutmix partners lie within groups of this many images");
  options.bn_group = run.integer(
      "bn_group", 128, 1, kMany,
      "consecutive images of the global batch that share BatchNorm statistics (at most the batch)");
  options.precision =
      run.choice("precision", "fp32", {"fp32", "fp64", "bf16"},
                 "arithmetic of forward and backward pass; bf16: with weights and residual stream "
                 "in fp32, on a CUDA device");
  const bool half = options.precision == "bf16";
  options.kernels =
      run.choice("kernels", half ? "fused" : "reference", {"reference", "fused"},
                 "plain ATen operations, which define every result, or fused ones in bf16");
  if (half != options.fused()) {
    run.fail("kernels",
             cat("\"", options.kernels, "\" does not go with precision \"", options.precision,
                 "\": bf16 is computed by fused kernels, fp32 and fp64 by reference ones"));
  }
  options.wire = run.choice("wire", "fp32", {"fp32", "bf16"},
                            "format in which CUDA devices exchange gradients");
  options.clip_norm =
      run.number("clip_norm", 0.0, 0.0, 1e9, "largest norm of the whole gradient; 0 does not clip");
  options.ema_decay =
      run.number("ema_decay", 0.0, 0.0, 0.9999999, "decay of the weight average; 0 keeps none");
  options.evaluate_every =
      run.integer("evaluate_every", 1, 1, kMany, "epochs between evaluations (the last always is)");
  options.on_nan = run.choice("on_nan", "stop", {"stop", "skip"},
                              "what a loss or gradient that is not finite does") == "stop"
                       ? NanPolicy::Stop
                       : NanPolicy::Skip;
  options.from_weights = run.choice("from_weights", "raw", {"raw", "ema"},
                                    "which final weights of the parent run to start from");
  if (options.bn_group > options.global_batch) {
    options.bn_group = options.global_batch;
    run.record("bn_group", options.bn_group);
  }
  return options;
}

RunLength TrainingOptions::length(std::int64_t steps_per_epoch) const {
  if (steps == 0) return RunLength::of_epochs(steps_per_epoch, epochs);
  return {steps_per_epoch, steps};
}

}  // namespace ablate
