#include "methods/models/drop_path.h"

#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate {

at::Tensor drop_path_scale(std::string_view join, double rate, double gain, std::int64_t batch,
                           const at::TensorOptions& options, const ForwardState& state) {
  // Word p % 4 of the stream's block p / 4 belongs to the sample at position p of the global batch:
  // what RandomStream(seed, DropPath, name, step) would hand out as its p-th number.
  const std::uint64_t module = hash64(join);
  const auto key = philox_key(state.seed, Purpose::DropPath);
  const auto low = static_cast<std::uint32_t>(module);
  const auto high = static_cast<std::uint32_t>(module >> 32);
  const double keep = 1.0 - rate;
  at::Tensor scale = at::zeros({batch, 1, 1}, at::kDouble);
  double* data = scale.mutable_data_ptr<double>();
  for (std::int64_t row = 0; row < batch; ++row) {
    const auto position = static_cast<std::uint64_t>(state.first_position + row);
    const auto words = philox4x32({static_cast<std::uint32_t>(position / 4),
                                   static_cast<std::uint32_t>(state.step), low, high},
                                  key);
    const double uniform = static_cast<double>(words[position % 4] >> 8) * 0x1p-24;
    if (uniform < keep) data[row] = gain / keep;
  }
  return scale.to(options);
}

}  // namespace ablate
