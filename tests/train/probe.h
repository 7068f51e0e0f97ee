#pragma once

#include <functional>
#include <string>

#include "methods/method.h"

namespace ablate::test {

/// What the method "probe" does in a run; each function may be empty. Ranks call them at the same
/// time, each with its own context.
struct ProbeHooks {
  std::function<void(TrainContext&)> between_steps;
  std::function<at::Tensor(TrainContext&, const at::Tensor& loss)> in_step;
};

/// Override that puts the method "probe" into a run: it edits nothing and does what the living
/// Probe says, so that the same spec runs with and without a disturbance.
inline const std::string kWithProbe = R"(methods=[{name="probe"}])";

/// Sets the hooks of the method "probe" while it lives. One at a time.
class Probe {
 public:
  explicit Probe(ProbeHooks hooks);
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
};

/// Hooks that call `action` before step `step` on one rank.
ProbeHooks before_step(std::int64_t step, int rank, std::function<void()> action);

}  // namespace ablate::test
