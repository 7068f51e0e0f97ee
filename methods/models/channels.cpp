#include "methods/models/channels.h"

#include "methods/models/channel_gates.h"
#include "methods/models/reweight.h"
#include "methods/models/slots.h"
#include "runner/core/error.h"

namespace ablate {

void ParameterSlicer::slice(at::Tensor& parameter, int axis,
                            const std::vector<std::int64_t>& index) {
  const at::NoGradGuard no_grad;
  const at::Tensor places = at::tensor(index, at::kLong).to(parameter.device());
  const at::Tensor values = parameter.detach().index_select(axis, places);
  parameter.mutable_grad() = at::Tensor();
  parameter.set_data(values);
  slices_.push_back({parameter, axis, index});
}

std::vector<at::Tensor> ChannelOwner::writers(const ChannelGroup& group) const {
  check_failed("a channel group of this module", group.name);
}

at::Tensor ChannelOwner::reader(const ChannelGroup& group) const {
  check_failed("a channel group of this module", group.name);
}

void ChannelOwner::keep_channels(ChannelGroup& group, const std::vector<std::int64_t>&,
                                 ParameterSlicer&) {
  check_failed("a channel group of this module", group.name);
}

at::Tensor channel_gate(const ChannelGroup& group, ForwardState& state) {
  const auto found = state.channel_gates.find(&group);
  if (found != state.channel_gates.end()) return found->second;
  if (!group.gates) return {};
  // All of them at once, by the first that is asked for.
  if (state.seat_gates.empty()) state.seat_gates = group.gates->forward();
  return state.seat_gates[group.seat];
}

at::Tensor gate_channels(const at::Tensor& x, const ChannelGroup& group, ForwardState& state) {
  const at::Tensor gate = channel_gate(group, state);
  return gate.defined() ? x * gate.to(x.scalar_type()) : x;
}

void observe_channels(const at::Tensor& x, const ChannelGroup& group, ChannelOperand operand,
                      const ForwardState& state) {
  if (state.channel_observer) state.channel_observer->see(group, operand, x);
}

at::Tensor pass_channels(const at::Tensor& x, const ChannelGroup& group, ForwardState& state) {
  const at::Tensor gated = gate_channels(x, group, state);
  observe_channels(gated, group, ChannelOperand::Output, state);
  return group.reweight ? group.reweight->forward(gated, group, state) : gated;
}

void spend_on_channels(const ChannelGroup& group, double macs, const ForwardState& state,
                       const ChannelGroup* other) {
  if (state.channel_observer) state.channel_observer->cost(group, other, macs);
}

}  // namespace ablate
