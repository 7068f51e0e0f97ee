#include "runner/train/distillation.h"

#include "methods/models/model.h"

namespace ablate {

Distillation::Options Distillation::Options::read(Params& params) {
  Options options;
  options.alpha = params.number("alpha", 0.5, 0.0, 1.0,
                                "weight of the teacher's term; 1 - alpha of the label's");
  options.temperature = params.number("temperature", 1.0, 0.01, 1000.0,
                                      "softening of both distributions (mode = \"soft\")");
  options.hard = params.choice("mode", "hard", {"hard", "soft"},
                               "learn the teacher's decision, or its distribution") == "hard";
  return options;
}

Distillation::Distillation(Options options, std::shared_ptr<Model> teacher)
    : options_(options), teacher_(std::move(teacher)) {
  teacher_->eval();
}

at::Tensor Distillation::kd_loss(const Options& options, const at::Tensor& student,
                                 const at::Tensor& teacher) {
  if (options.hard) return at::cross_entropy_loss(student, teacher.argmax(-1));
  const double tau = options.temperature;
  const at::Tensor student_log = at::log_softmax(student / tau, -1);
  const at::Tensor teacher_log = at::log_softmax(teacher / tau, -1);
  const at::Tensor divergence = (teacher_log.exp() * (teacher_log - student_log)).sum();
  return divergence * (tau * tau / static_cast<double>(student.numel()));
}

at::Tensor Distillation::loss(const at::Tensor& base, const at::Tensor& output,
                              const at::Tensor& images) const {
  at::Tensor teacher_logits;
  {
    const at::NoGradGuard no_grad;
    ForwardState state;
    teacher_logits = teacher_->forward(images, state);
  }
  const at::Tensor student = output.dim() == 3 ? output.select(1, 1) : output;
  return (1.0 - options_.alpha) * base +
         options_.alpha * kd_loss(options_, student, teacher_logits);
}

}  // namespace ablate
