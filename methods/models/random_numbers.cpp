#include "methods/models/random_numbers.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include "methods/models/uncounted.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate {
namespace {

constexpr std::int64_t kWord = 0xFFFFFFFF;
constexpr std::int64_t kHalfWord = 0xFFFF;

std::int64_t low_word(std::uint64_t value) { return static_cast<std::int64_t>(value) & kWord; }
std::int64_t high_word(std::uint64_t value) { return static_cast<std::int64_t>(value >> 32); }

/// High and low word of factor * x for 32-bit words, by halves: no product leaves 63 bits.
std::pair<at::Tensor, at::Tensor> wide_product(std::int64_t factor, const at::Tensor& x) {
  const at::Tensor low = at::bitwise_and(x, kHalfWord) * factor;
  const at::Tensor middle =
      at::bitwise_right_shift(x, 16) * factor + at::bitwise_right_shift(low, 16);
  const at::Tensor low_half = at::bitwise_and(low, kHalfWord);
  return {at::bitwise_right_shift(middle, 16),
          at::bitwise_left_shift(at::bitwise_and(middle, kHalfWord), 16) + low_half};
}

/// Philox4x32-10 of runner/core/random.h in tensor operations: words in int64.
std::array<at::Tensor, 4> philox_words(std::array<at::Tensor, 4> counter,
                                       std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const auto [high0, low0] = wide_product(0xD2511F53, counter[0]);
    const auto [high1, low1] = wide_product(0xCD9E8D57, counter[2]);
    counter = {at::bitwise_xor(at::bitwise_xor(high1, counter[1]), std::int64_t{key[0]}), low1,
               at::bitwise_xor(at::bitwise_xor(high0, counter[3]), std::int64_t{key[1]}), low0};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// Four numbers a block, (.., 4) for blocks (..).
at::Tensor uniform_blocks(const at::Tensor& blocks, const at::Tensor& step, std::uint64_t seed,
                          std::string_view module) {
  const std::uint64_t key = hash64(module);
  const auto constant = [&](std::int64_t value) { return at::full_like(blocks, value); };
  const auto words = philox_words({blocks, at::bitwise_and(step, kWord).expand_as(blocks),
                                   constant(low_word(key)), constant(high_word(key))},
                                  philox_key(seed, Purpose::Method));
  const at::Tensor word = at::stack({words[0], words[1], words[2], words[3]}, -1);
  return (at::bitwise_right_shift(word, 8).to(at::kDouble) + 0.5) * 0x1p-24;
}

at::Tensor step_number(const ForwardState& state, std::string_view module,
                       const at::TensorOptions& options) {
  if (!options.device().is_cuda()) return at::full({}, state.step, options);
  if (!state.device_step.defined()) {
    throw Error(cat("random numbers of ", module,
                    " need the number of the step on the device: they cannot be drawn there yet; "
                    "use device = \"cpu\""));
  }
  return state.device_step;
}

}  // namespace

at::Tensor uniform_numbers(const ForwardState& state, std::string_view module, std::int64_t rows,
                           std::int64_t count, const at::Tensor& like) {
  const at::NoGradGuard no_grad;
  const UncountedScope uncounted;
  const std::int64_t a_row = (count + 3) / 4;
  ABLATE_CHECK((state.first_position + rows) * a_row <= kWord, "too many numbers of ", module);
  const at::TensorOptions options = like.options().dtype(at::kLong);
  const at::Tensor blocks =
      at::arange(state.first_position * a_row, (state.first_position + rows) * a_row, options);
  return uniform_blocks(blocks, step_number(state, module, options), state.seed, module)
      .view({rows, 4 * a_row})
      .narrow(1, 0, count);
}

at::Tensor fixed_numbers(std::string_view module, std::int64_t count, const at::Tensor& like) {
  const at::NoGradGuard no_grad;
  const UncountedScope uncounted;
  const at::TensorOptions options = like.options().dtype(at::kLong);
  const at::Tensor blocks = at::arange((count + 3) / 4, options);
  return uniform_blocks(blocks, at::zeros({}, options), 0, module)
      .view({1, -1})
      .narrow(1, 0, count);
}

at::Tensor draw_mask(GainMask mask, const at::Tensor& probability, const at::Tensor& x,
                     std::string_view module, const ForwardState& state) {
  const std::int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
  const std::int64_t drawn_tokens =
      mask == GainMask::Element || mask == GainMask::Token ? tokens : 1;
  const std::int64_t drawn_channels =
      mask == GainMask::Element || mask == GainMask::Channel ? channels : 1;
  const at::Tensor numbers =
      uniform_numbers(state, module, batch, drawn_tokens * drawn_channels, x);
  return (numbers < probability).to(x.scalar_type()).view({batch, drawn_tokens, drawn_channels});
}

namespace {

constexpr std::array<std::string_view, 5> kMaskNames{"none", "element", "token", "channel",
                                                     "sample"};

}  // namespace

std::string_view mask_name(GainMask mask) { return kMaskNames.at(static_cast<std::size_t>(mask)); }

GainMask mask_named(std::string_view name) {
  const auto found = std::ranges::find(kMaskNames, name);
  if (found == kMaskNames.end()) {
    throw Error(cat("unknown mask \"", name, "\"; known: none, element, token, channel, sample"));
  }
  return static_cast<GainMask>(found - kMaskNames.begin());
}

}  // namespace ablate
