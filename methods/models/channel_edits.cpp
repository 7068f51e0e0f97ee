#include "methods/models/channel_edits.h"

#include <algorithm>

#include "methods/models/channel_gates.h"
#include "methods/models/model.h"
#include "methods/models/reweight.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

[[noreturn]] void refuse_channel_edit(const Edit& edit, const std::string& reason) {
  throw Error(cat("cannot ", describe(edit), ": ", reason));
}

Block::OwnedChannels find_channels(Model& model, const ChannelPlace& place, const Edit& edit) {
  const std::vector<Block*> blocks = model.blocks();
  const int count = static_cast<int>(blocks.size());
  if (count == 0) refuse_channel_edit(edit, "the model has no blocks with channel groups");
  if (place.block < 0 || place.block >= count) {
    refuse_channel_edit(edit, cat("the model has blocks 0 to ", count - 1));
  }
  std::vector<std::string> known;
  for (const auto& owned : blocks[static_cast<std::size_t>(place.block)]->channel_groups()) {
    if (owned.group->name == place.group) return owned;
    known.push_back(owned.group->name);
  }
  refuse_channel_edit(edit, cat("block ", place.block, " has no channel group \"", place.group,
                                "\"; it has: ", join(known)));
}

/// Brings a new module to where the model is and into its precision and mode.
void place_in(Model& model, torch::nn::Module& module) {
  const at::TensorOptions options = model.parameters().front().options().requires_grad(false);
  const at::NoGradGuard no_grad;
  for (at::Tensor& tensor : module.parameters()) tensor.set_data(tensor.to(options));
  for (at::Tensor& tensor : module.buffers()) tensor.set_data(tensor.to(options));
  module.train(model.is_training());
}

std::vector<ChannelGroup*> groups_of(Model& model, const ChannelSeat& seat, const Edit& edit) {
  if (seat.places.empty()) refuse_channel_edit(edit, "a seat decides about nothing");
  std::vector<ChannelGroup*> groups;
  for (const ChannelPlace& place : seat.places) {
    ChannelGroup* group = find_channels(model, place, edit).group;
    groups.push_back(group);
    if (group->heads != groups.front()->heads || group->width != groups.front()->width) {
      refuse_channel_edit(edit, cat("groups \"", groups.front()->name, "\" and \"", group->name,
                                    "\" of one seat differ in shape"));
    }
  }
  return groups;
}

/// The child of its owner that holds a group's reweighting.
std::string reweight_name(const ChannelGroup& group) { return cat("reweight_", group.name); }

torch::nn::Module& module_of(ChannelOwner& owner) {
  return dynamic_cast<torch::nn::Module&>(owner);
}

}  // namespace

bool perform(Model& model, const AttachGates& edit) {
  if (model.channel_gates()) refuse_channel_edit(edit, "the model has gates already");
  if (edit.seats.empty()) refuse_channel_edit(edit, "there is nothing to decide about");
  std::vector<ChannelGates::Seat> seats;
  std::vector<std::vector<ChannelGroup*>> groups;
  for (const ChannelSeat& seat : edit.seats) {
    groups.push_back(groups_of(model, seat, edit));
    const ChannelGroup& first = *groups.back().front();
    seats.push_back({first.heads, first.width, seat.shared});
  }
  Params params(edit.params, "channel gates");
  const auto gates = std::make_shared<ChannelGates>(seats, params);
  params.finish();
  place_in(model, *gates);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (ChannelGroup* group : groups[i]) {
      if (group->gates) refuse_channel_edit(edit, cat("two seats for \"", group->name, "\""));
      group->gates = gates.get();
      group->seat = i;
    }
  }
  model.set_channel_gates(gates);
  return true;
}

bool perform(Model& model, const DetachGates& edit) {
  if (!model.channel_gates()) refuse_channel_edit(edit, "the model has none");
  for (const Block* block : model.blocks()) {
    for (const auto& owned : block->channel_groups()) owned.group->gates = nullptr;
  }
  model.set_channel_gates(nullptr);
  return true;
}

bool perform(Model& model, const AttachReweight& edit) {
  const auto [owner, group] = find_channels(model, {edit.block, edit.group}, edit);
  if (group->role != ChannelRole::Value) refuse_channel_edit(edit, "it is no group of values");
  if (group->reweight) refuse_channel_edit(edit, "it is reweighted already");
  group->reweight = make_reweight(edit.kind, *group, edit.hidden);
  place_in(model, *group->reweight);
  module_of(*owner).register_module(reweight_name(*group), group->reweight);
  return true;
}

bool perform(Model& model, const FoldReweight& edit) {
  const auto [owner, group] = find_channels(model, {edit.block, edit.group}, edit);
  if (!group->reweight) refuse_channel_edit(edit, "it is not reweighted");
  const at::NoGradGuard no_grad;
  const at::Tensor factor = group->reweight->constant_factor(*group);
  if (!factor.defined()) refuse_channel_edit(edit, "its factors depend on the input");
  owner->reader(*group).mul_(factor);
  module_of(*owner).unregister_module(reweight_name(*group));
  group->reweight.reset();
  return true;
}

namespace {

void check_cut(const ChannelGroup& group, const KeepChannels& edit) {
  const auto& channels = edit.channels;
  if (group.gates) refuse_channel_edit(edit, "its gates must be detached first");
  if (group.cut()) refuse_channel_edit(edit, "they have been cut before");
  if (channels.empty() || std::ssize(channels) % group.heads != 0) {
    refuse_channel_edit(edit, cat(channels.size(), " channels for ", group.heads, " heads"));
  }
  if (std::ssize(channels) == group.channels()) refuse_channel_edit(edit, "all of them are kept");
  const bool rising =
      std::ranges::adjacent_find(channels, std::greater_equal<>()) == channels.end();
  if (!rising || channels.front() < 0 || channels.back() >= group.channels()) {
    refuse_channel_edit(edit, cat("channels must rise and lie in 0 to ", group.channels() - 1));
  }
}

std::string name_of(Model& model, const at::Tensor& parameter) {
  for (const auto& item : model.named_parameters()) {
    if (item.value().is_same(parameter)) return item.key();
  }
  check_failed("a sliced tensor is a parameter of the model", cat(parameter.sizes()));
}

}  // namespace

std::vector<NamedSlice> cut_channels(Model& model, const KeepChannels& edit) {
  const auto [owner, group] = find_channels(model, {edit.block, edit.group}, edit);
  check_cut(*group, edit);
  ParameterSlicer slicer;
  if (group->reweight) group->reweight->keep_channels(*group, edit.channels, slicer);
  owner->keep_channels(*group, edit.channels, slicer);
  ABLATE_CHECK(group->channels() == std::ssize(edit.channels), "width not set by the owner");
  std::vector<NamedSlice> slices;
  for (const auto& slice : slicer.slices()) {
    slices.push_back({name_of(model, slice.parameter), slice.axis, slice.index});
  }
  return slices;
}

}  // namespace ablate
