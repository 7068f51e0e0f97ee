#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runner/core/params.h"
#include "runner/torch/torch.h"

namespace ablate {

class Model;

/// Learning from another run's logits (Touvron et al., "Training data-efficient image
/// transformers", ICML 2021):  loss = (1 - alpha) base + alpha kd(student, teacher(x)), x the
/// augmented, mixed image.
///   hard: kd = cross-entropy against the teacher's argmax;
///   soft: kd = tau^2 KL(teacher / tau || student / tau), mean over all elements (B K) as in the
///         published code, not over the batch.
/// A model with a distillation head learns kd on that head, another on its only head.
class Distillation {
 public:
  struct Options {
    double alpha;
    double temperature;
    bool hard;

    static Options read(Params& params);
  };

  Distillation(Options options, std::shared_ptr<Model> teacher);

  /// `base` is the task's loss; `output` the student's (B, K) or (B, 2, K).
  at::Tensor loss(const at::Tensor& base, const at::Tensor& output, const at::Tensor& images) const;

  /// The kd term alone, for (B, K) logits.
  static at::Tensor kd_loss(const Options& options, const at::Tensor& student,
                            const at::Tensor& teacher);

 private:
  Options options_;
  std::shared_ptr<Model> teacher_;
};

}  // namespace ablate
