#include "methods/models/fused/joins.h"

#include <cstddef>
#include <cstring>

#include "methods/models/fused/common.h"
#include "methods/models/model.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

/// Gains of a block that is being diluted change under a captured step; other gains are constants.
bool moves(const Block& block, bool attention) {
  return block.drop_path() > 0.0 || (attention && block.retiring());
}

}  // namespace

DeviceJoins::DeviceJoins(Model& model, std::int64_t batch, std::int64_t first_position,
                         std::uint64_t seed, at::Device device)
    : batch_(batch), first_position_(first_position), seed_(seed) {
  for (Block* block : model.blocks()) {
    const bool mixes = block->mixer() && block->attention_gains().branch != 0.0;
    if (mixes && moves(*block, true))
      joins_.push_back({block, true, block->block_name() + ".attn", block->drop_path()});
    if (moves(*block, false))
      joins_.push_back({block, false, block->block_name() + ".mlp", block->drop_path()});
  }
  for (const LayerSite* site : model.layer_sites()) {
    const LayerAttention* module = site->layer_attention();
    if (!module || module->on_branch() || module->adds_nothing() || module->drop_path() == 0.0)
      continue;
    joins_.push_back({nullptr, false, layer_attention_name(site->place()), module->drop_path()});
  }
  const auto count = std::ssize(joins_);
  const auto bytes = static_cast<std::int64_t>(skips_offset() + joins_.size() * sizeof(float));
  const auto options = at::TensorOptions().device(device);
  block_ = at::zeros({bytes}, options.dtype(at::kByte));
  scales_ = at::ones({count, batch}, options.dtype(at::kFloat));
  auto* block = static_cast<std::byte*>(block_.data_ptr());
  auto* skips = reinterpret_cast<float*>(block + skips_offset());
  for (std::int64_t j = 0; j < count; ++j) {
    const Join& join = joins_[static_cast<std::size_t>(j)];
    JoinNumbers numbers{.scale = scales_[j].view({batch, 1, 1}), .skip = {}};
    if (join.attention && join.block->retiring()) {
      const std::size_t offset = static_cast<std::size_t>(j) * sizeof(kernels::DropPathJoin) +
                                 offsetof(kernels::DropPathJoin, gain);
      numbers.skip = at::from_blob(skips + j, {1, 1, 1}, options.dtype(at::kFloat));
      numbers.branch =
          at::from_blob(block + joins_offset() + offset, {}, options.dtype(at::kDouble));
    }
    numbers_[join.name] = std::move(numbers);
  }
}

std::vector<std::byte> DeviceJoins::host_block(std::int64_t step) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(block_.numel()));
  std::memcpy(bytes.data(), &step, sizeof step);
  for (std::size_t j = 0; j < joins_.size(); ++j) {
    const Join& join = joins_[j];
    const ResidualGains gains = join.attention ? join.block->attention_gains() : ResidualGains{};
    const kernels::DropPathJoin numbers{
        .module = hash64(join.name), .keep = 1.0 - join.drop_path, .gain = gains.branch};
    const auto skip = static_cast<float>(gains.skip);
    std::memcpy(bytes.data() + joins_offset() + j * sizeof numbers, &numbers, sizeof numbers);
    std::memcpy(bytes.data() + skips_offset() + j * sizeof skip, &skip, sizeof skip);
  }
  return bytes;
}

void DeviceJoins::enqueue() {
  if (joins_.empty()) return;
  const auto* block = static_cast<const std::byte*>(block_.const_data_ptr());
  kernels::drop_path_scales(
      {.joins = reinterpret_cast<const kernels::DropPathJoin*>(block + joins_offset()),
       .join_count = std::ssize(joins_),
       .batch = batch_,
       .first_position = first_position_,
       .seed = seed_,
       .step = reinterpret_cast<const std::int64_t*>(block),
       .scales = scales_.data_ptr<float>()},
      fused::current_stream());
}

}  // namespace ablate
