#include "runner/train/device_update.h"
#include "runner/train/optimizer.h"

namespace ablate::train::adamw {
namespace {

struct Settings {
  double beta1, beta2, eps;
  DecaySettings decay;
};

class AdamW final : public Optimizer {
 public:
  explicit AdamW(const Settings& settings) : settings_(settings) {}

  void prepare(ParameterArena& arena) const override {
    arena.state("exp_avg");
    arena.state("exp_avg_sq");
  }

  void step(ParameterArena& arena, const UpdateArguments& arguments) const override {
    arena.set_updates(arena.updates() + 1);
    if (arena.parameters().scalar_type() == at::kFloat) {
      step_as<float>(arena, arguments);
    } else {
      step_as<double>(arena, arguments);
    }
  }

  const DecaySettings& decay() const override { return settings_.decay; }

  void enqueue(ParameterArena& arena, DeviceUpdate& update) const override {
    if constexpr (ABLATE_HAS_CUDA) {
      const kernels::AdamWRule rule{settings_.beta1, settings_.beta2, settings_.eps};
      const kernels::FlatUpdate flat = update.flat();
      const auto stream = current_stream();
      kernels::begin_update(flat, rule, update.workspace(), stream);
      kernels::adamw_update(flat, rule, arena.state("exp_avg").data_ptr<float>(),
                            arena.state("exp_avg_sq").data_ptr<float>(), stream);
    }
  }

 private:
  template <typename T>
  void step_as(ParameterArena& arena, const UpdateArguments& arguments) const {
    T* exp_avg = arena.state("exp_avg").data_ptr<T>();
    T* exp_avg_sq = arena.state("exp_avg_sq").data_ptr<T>();
    const std::int64_t update = arena.updates();
    for_each_span<T>(arena, arguments, settings_.decay,
                     [&](const UpdateSpan<T>& span, std::int64_t begin) {
                       adamw_update<T>(span, {.exp_avg = exp_avg + begin,
                                              .exp_avg_sq = exp_avg_sq + begin,
                                              .beta1 = settings_.beta1,
                                              .beta2 = settings_.beta2,
                                              .eps = settings_.eps,
                                              .update = update});
                     });
  }

  Settings settings_;
};

const Registry<OptimizerInfo>::Add added{{
    .name = "adamw",
    .summary = "Adam with decoupled weight decay",
    .semantics = 1,
    .make = [](Params& params) -> std::unique_ptr<Optimizer> {
      Settings settings{};
      settings.beta1 = params.number("beta1", 0.9, 0.0, 0.999999, "decay of the mean gradient");
      settings.beta2 =
          params.number("beta2", 0.999, 0.0, 0.99999999, "decay of the mean squared gradient");
      settings.eps = params.number("eps", 1e-8, 1e-16, 1.0, "added to the root mean square");
      settings.decay = DecaySettings::read(params, 0.05);
      return std::make_unique<AdamW>(settings);
    },
}};

}  // namespace
}  // namespace ablate::train::adamw
