#include "tests/train/probe.h"

#include <memory>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate::test {
namespace {

std::unique_ptr<const ProbeHooks>& living_hooks() {
  static std::unique_ptr<const ProbeHooks> hooks;
  return hooks;
}

class ProbeMethod final : public Method {
 public:
  void apply(TrainContext&) override {}
  void between_steps(TrainContext& context) override {
    const ProbeHooks* hooks = living_hooks().get();
    if (hooks && hooks->between_steps) hooks->between_steps(context);
  }
  at::Tensor in_step(TrainContext& context, at::Tensor loss) override {
    const ProbeHooks* hooks = living_hooks().get();
    return hooks && hooks->in_step ? hooks->in_step(context, loss) : loss;
  }
  /// A settled method that edits nothing would be refused.
  bool settled() const override { return false; }
};

const bool probe_registered = [] {
  MethodInfo info{};
  info.name = "probe";
  info.semantics = 1;
  info.phase = Phase::Architecture;
  info.make = [](Params&) -> std::unique_ptr<Method> { return std::make_unique<ProbeMethod>(); };
  Registry<MethodInfo>::Add{info};
  return true;
}();

}  // namespace

Probe::Probe(ProbeHooks hooks) {
  ABLATE_CHECK(probe_registered && !living_hooks());
  living_hooks() = std::make_unique<const ProbeHooks>(std::move(hooks));
}

Probe::~Probe() { living_hooks().reset(); }

ProbeHooks before_step(std::int64_t step, int rank, std::function<void()> action) {
  ProbeHooks hooks;
  hooks.between_steps = [=](TrainContext& context) {
    if (context.step() == step && context.communicator().rank() == rank) action();
  };
  return hooks;
}

}  // namespace ablate::test
