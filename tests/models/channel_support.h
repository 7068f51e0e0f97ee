#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/models/edit.h"
#include "methods/models/reweight.h"
#include "tests/support/models.h"

namespace ablate::test {

/// A group of a block of the model.
inline Block::OwnedChannels channels_of(Model& model, int block, const std::string& group) {
  for (const auto& owned : model.blocks()[static_cast<std::size_t>(block)]->channel_groups()) {
    if (owned.group->name == group) return owned;
  }
  throw Error(cat("no group ", group));
}

/// Channels of `heads` heads of `width`, `kept` of each; which ones differs from head to head and
/// with `salt`. Ascending.
inline std::vector<std::int64_t> some_channels(std::int64_t heads, std::int64_t width,
                                               std::int64_t kept, std::int64_t salt) {
  std::vector<std::int64_t> channels;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < width; ++i) {
      if ((i + 2 * head + salt) % width < kept) channels.push_back(head * width + i);
    }
  }
  return channels;
}

/// 1 at these channels of a group, else 0.
inline at::Tensor mask_of(const ChannelGroup& group, const std::vector<std::int64_t>& channels,
                          const at::TensorOptions& options) {
  const at::Tensor index = at::tensor(channels, at::kLong).to(options.device());
  return at::zeros({group.channels()}, options).index_fill(0, index, 1.0);
}

/// Channels to keep of every group of every block: about half of them, at least one a head.
inline std::vector<KeepChannels> cuts_of_all_groups(Model& model) {
  std::vector<KeepChannels> cuts;
  const auto blocks = model.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    std::int64_t salt = static_cast<std::int64_t>(i);
    for (const auto& [owner, group] : blocks[i]->channel_groups()) {
      // Different widths of queries and values.
      const std::int64_t kept =
          std::max<std::int64_t>(group->width / 2 - (group->role == ChannelRole::Value ? 1 : 0), 1);
      cuts.push_back({static_cast<int>(i), group->name,
                      some_channels(group->heads, group->width, kept, ++salt)});
    }
  }
  return cuts;
}

/// Gates of a pass that let through what these cuts keep.
inline void gate_by(Model& model, const std::vector<KeepChannels>& cuts, ForwardState& state) {
  for (const KeepChannels& cut : cuts) {
    ChannelGroup* group = channels_of(model, cut.block, cut.group).group;
    state.channel_gates[group] =
        mask_of(*group, cut.channels, model.parameters().front().options().requires_grad(false));
  }
}

/// Parameters that differ from each other and are not 0, the same for equal names and shapes.
inline void fill_wavily(Model& model, double size = 0.3) {
  const at::NoGradGuard no_grad;
  double j = 0;
  for (auto& item : model.named_parameters()) {
    const at::Tensor n = at::arange(item.value().numel(), at::kDouble);
    const at::Tensor w =
        (0.7 * n + 1.3 * j + at::fmod(0.05 * n * n, 7)).sin().view_as(item.value()) * size;
    const bool norm =
        item.key().find("norm") != std::string::npos && item.key().ends_with("weight");
    item.value().copy_(norm ? 1 + w : w);
    j += 1;
  }
}

}  // namespace ablate::test
