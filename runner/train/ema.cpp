#include "runner/train/ema.h"

#include "methods/models/model.h"
#include "runner/core/error.h"
#include "runner/train/optimizer.h"

namespace ablate {
namespace {

void exchange_values(at::Tensor a, at::Tensor b) {
  const at::Tensor old = a.clone();
  a.copy_(b);
  b.copy_(old);
}

}  // namespace

Ema::Ema(Model& model, ParameterArena& arena, double decay) : arena_(arena), decay_(decay) {
  ABLATE_CHECK(decay > 0.0 && decay < 1.0, "decay ", decay);
  arena_.state(kEmaState, ParameterArena::StateInit::Parameters);
  rebuild(model);
}

void Ema::rebuild(Model& model) {
  const at::NoGradGuard no_grad;
  live_.clear();
  std::map<std::string, at::Tensor> kept;
  for (const auto& entry : model.named_buffers()) {
    if (!entry.value().defined() || !entry.value().is_floating_point()) continue;
    live_[entry.key()] = entry.value();
    const auto found = averages_.find(entry.key());
    kept[entry.key()] = found != averages_.end() ? found->second : entry.value().clone();
  }
  averages_ = std::move(kept);
}

void Ema::update_buffers() {
  const at::NoGradGuard no_grad;
  for (auto& [name, average] : averages_) average.mul_(decay_).add_(live_.at(name), 1.0 - decay_);
}

void Ema::update_buffers(const at::Tensor& updated) {
  if (averages_.empty()) return;
  const at::NoGradGuard no_grad;
  const at::Tensor share = updated.to(at::kFloat) * (1.0 - decay_);
  for (auto& [name, average] : averages_) average.add_((live_.at(name) - average) * share);
}

void Ema::exchange() {
  const at::NoGradGuard no_grad;
  exchange_values(arena_.parameters(),
                  arena_.state(kEmaState, ParameterArena::StateInit::Parameters));
  for (auto& [name, average] : averages_) exchange_values(live_.at(name), average);
}

}  // namespace ablate
