#include "runner/train/device_update.h"

#include <cstddef>
#include <vector>

#include "runner/core/error.h"

namespace ablate {
namespace {

std::vector<kernels::UpdateChunk> chunk_table(const ParameterArena& arena,
                                              const DecaySettings& decay) {
  std::vector<kernels::UpdateChunk> table;
  for (const ArenaChunk& chunk : arena.chunks()) {
    const ArenaSegment& segment = arena.segments()[chunk.segment];
    const SegmentSettings& settings = segment.settings;
    const SegmentRates rates = rates_of(segment, decay);
    table.push_back({.begin = chunk.begin,
                     .count = chunk.count,
                     .lr_factor = rates.lr_factor,
                     .weight_decay = rates.weight_decay,
                     .clamp_low = settings.clamp_low,
                     .clamp_high = settings.clamp_high});
  }
  return table;
}

at::Tensor bytes(std::size_t count, at::Device device) {
  return at::zeros({static_cast<std::int64_t>(count)},
                   at::TensorOptions().dtype(at::kByte).device(device));
}

}  // namespace

DeviceUpdate::DeviceUpdate(ParameterArena& arena, const DecaySettings& decay, Options options)
    : arena_(arena), options_(std::move(options)) {
  const at::Device device = arena.parameters().device();
  ABLATE_CHECK(device.is_cuda() && arena.parameters().scalar_type() == at::kFloat,
               "device updates take float parameters on a CUDA device");
  auto table = chunk_table(arena, decay);
  chunk_count_ = std::ssize(table);
  const std::size_t size = table.size() * sizeof(kernels::UpdateChunk);
  chunks_ = bytes(size, device);
  chunks_.copy_(at::from_blob(table.data(), {static_cast<std::int64_t>(size)}, at::kByte));
  scalars_ = bytes(sizeof(kernels::UpdateScalars), device);
  kernels::UpdateStatus status{};
  status.updates = arena.updates();
  status_ = bytes(sizeof status, device);
  status_.copy_(at::from_blob(&status, {status_.numel()}, at::kByte));
  workspace_ = bytes(kernels::begin_update_workspace_bytes(chunk_count_), device);
}

at::Tensor DeviceUpdate::finite() const {
  constexpr auto kOffset = static_cast<std::int64_t>(offsetof(kernels::UpdateStatus, finite));
  return status_.narrow(0, kOffset, sizeof(std::int32_t)).view(at::kInt).squeeze(0);
}

kernels::FlatUpdate DeviceUpdate::flat() {
  float* average = nullptr;
  if (options_.ema) {
    average = arena_.state(kEmaState, ParameterArena::StateInit::Parameters).data_ptr<float>();
  }
  return {.chunks = static_cast<const kernels::UpdateChunk*>(chunks_.const_data_ptr()),
          .chunk_count = chunk_count_,
          .scalars = static_cast<const kernels::UpdateScalars*>(scalars_.const_data_ptr()),
          .status = static_cast<kernels::UpdateStatus*>(status_.data_ptr()),
          .loss = options_.loss.defined() ? options_.loss.const_data_ptr<double>() : nullptr,
          .gradients = arena_.gradients().const_data_ptr<float>(),
          .parameters = arena_.parameters().data_ptr<float>(),
          .ema = average,
          .working = options_.working ? static_cast<kernels::bfloat16*>(arena_.working().data_ptr())
                                      : nullptr};
}

kernels::Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace ablate
