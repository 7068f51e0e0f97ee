#include "runner/train/device_update.h"
#include "runner/train/optimizer.h"

namespace ablate::train::sgd {
namespace {

struct Settings {
  double momentum;
  bool nesterov;
  DecaySettings decay;
};

class Sgd final : public Optimizer {
 public:
  explicit Sgd(const Settings& settings) : settings_(settings) {}

  void prepare(ParameterArena& arena) const override {
    if (settings_.momentum > 0.0) arena.state("momentum");
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
      const bool moves = settings_.momentum > 0.0;
      const kernels::FlatUpdate flat = update.flat();
      const auto stream = current_stream();
      kernels::begin_update(flat, {}, update.workspace(), stream);
      kernels::sgd_update(flat, {settings_.momentum, settings_.nesterov},
                          moves ? arena.state("momentum").data_ptr<float>() : nullptr, stream);
    }
  }

 private:
  template <typename T>
  void step_as(ParameterArena& arena, const UpdateArguments& arguments) const {
    T* velocity = settings_.momentum > 0.0 ? arena.state("momentum").data_ptr<T>() : nullptr;
    for_each_span<T>(arena, arguments, settings_.decay,
                     [&](const UpdateSpan<T>& span, std::int64_t begin) {
                       sgd_update<T>(span, {.velocity = velocity ? velocity + begin : nullptr,
                                            .momentum = settings_.momentum,
                                            .nesterov = settings_.nesterov});
                     });
  }

  Settings settings_;
};

const Registry<OptimizerInfo>::Add added{{
    .name = "sgd",
    .summary = "stochastic gradient descent with momentum",
    .semantics = 1,
    .make = [](Params& params) -> std::unique_ptr<Optimizer> {
      Settings settings{};
      settings.momentum = params.number("momentum", 0.9, 0.0, 0.999999, "decay of the velocity");
      settings.nesterov = params.boolean("nesterov", false, "look ahead along the velocity");
      settings.decay = DecaySettings::read(params, 1e-4);
      return std::make_unique<Sgd>(settings);
    },
}};

}  // namespace
}  // namespace ablate::train::sgd
