#include "runner/train/training_options.h"

namespace ablate {

TrainingOptions TrainingOptions::read(Params& run) {
  constexpr std::int64_t kMany = 1'000'000;
  TrainingOptions options;
  options.epochs =
      run.required_integer("epochs", 0, kMany, "passes over the training set; 0 evaluates only");
  options.global_batch =
      run.integer("global_batch", 128, 1, kMany, "images an optimizer step sees, over all ranks");
  options.mix_group = run.integer(
      "mix_group", 32, 2, kMany, "mixup and cutmix partners lie within groups of this many images");
  options.bn_group = run.integer(
      "bn_group", 128, 1, kMany,
      "consecutive images of the global batch that share BatchNorm statistics (at most the batch)");
  options.precision =
      run.choice("precision", "fp32", {"fp32", "fp64"}, "arithmetic of forward and backward pass");
  options.kernels = run.choice("kernels", "reference", {"reference"},
                               "plain ATen operations define every result");
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

}  // namespace ablate
