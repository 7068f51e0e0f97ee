#include "methods/models/model.h"

namespace ablate {
namespace {

constexpr const char* kGates = "channel_gates";

}  // namespace

void Model::set_channel_gates(std::shared_ptr<ChannelGates> gates) {
  if (channel_gates_) unregister_module(kGates);
  channel_gates_ = std::move(gates);
  if (channel_gates_) register_module(kGates, channel_gates_);
}

std::map<std::string, ParameterSettings> Model::parameter_settings() const {
  std::map<std::string, ParameterSettings> settings;
  if (!channel_gates_) return settings;
  for (const auto& [name, value] : channel_gates_->parameter_settings()) {
    settings[std::string(kGates) + "." + name] = value;
  }
  return settings;
}

}  // namespace ablate
