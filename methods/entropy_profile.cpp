#include "methods/entropy_profile.h"

#include <numbers>

#include "runner/core/error.h"

namespace ablate {

EntropyProfile::EntropyProfile(const std::vector<std::string>& taps) {
  for (const std::string& tap : taps) statistics_.try_emplace(tap);
}

void EntropyProfile::add(Model& model, const at::Tensor& images, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  for (const auto& [tap, statistics] : statistics_) state.taps[tap];
  model.forward(images, state);
  for (auto& [tap, statistics] : statistics_) {
    const at::Tensor& tokens = state.taps[tap];
    if (!tokens.defined()) continue;
    ABLATE_CHECK(tokens.dim() == 3, tap, " is no sequence of tokens");
    const at::Tensor of_tokens = weights.unsqueeze(1).expand({tokens.size(0), tokens.size(1)});
    statistics.add(tokens.flatten(0, 1), of_tokens.flatten());
  }
}

void EntropyProfile::reduce(Communicator& communicator, at::Device device) {
  for (auto& [tap, statistics] : statistics_) statistics.reduce(communicator, device);
}

std::map<std::string, double> EntropyProfile::entropies() const {
  std::map<std::string, double> result;
  for (const auto& [tap, statistics] : statistics_) {
    if (statistics.samples() == 0) continue;
    try {
      result[tap] = statistics.entropy(false, std::numbers::e);
    } catch (const Error& error) {
      throw Error(cat("entropy of ", tap, ": ", error.what()));
    }
  }
  return result;
}

}  // namespace ablate
