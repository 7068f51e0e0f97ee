#include "methods/kernels/patch_embed.h"

#include <vector>

namespace ablate::kernels::reference {
namespace {

/// Adds `sums` to what stands there.
void add_sums(float* to, const double* sums, std::int64_t count) {
  if (to == nullptr) return;
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(to[i] + sums[i]);
}

}  // namespace

template <typename T>
void patchify(const Patchify<T>& arguments) {
  const std::int64_t patch = arguments.patch;
  bfloat16* to = arguments.patches;
  for (std::int64_t b = 0; b < arguments.batch; ++b) {
    for (std::int64_t y = 0; y < arguments.height; y += patch) {
      for (std::int64_t x = 0; x < arguments.width; x += patch) {
        for (std::int64_t c = 0; c < arguments.channels; ++c) {
          const T* plane =
              arguments.images + (b * arguments.channels + c) * arguments.height * arguments.width;
          for (std::int64_t py = 0; py < patch; ++py) {
            for (std::int64_t px = 0; px < patch; ++px) {
              *to++ = from_float<bfloat16>(to_float(plane[(y + py) * arguments.width + x + px]));
            }
          }
        }
      }
    }
  }
}

template <typename R>
void assemble_tokens(const AssembleTokens<R>& arguments) {
  const TokenShape& shape = arguments.shape;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      for (std::int64_t c = 0; c < shape.width; ++c) {
        const std::int64_t patch = (b * shape.patches + t - shape.prefix) * shape.width + c;
        double value =
            t < shape.prefix ? arguments.prefix_tokens[t][c] : to_float(arguments.patches[patch]);
        if (arguments.pos_embed != nullptr) value += arguments.pos_embed[t * shape.width + c];
        arguments.tokens[(b * shape.tokens() + t) * shape.width + c] =
            from_float<R>(static_cast<float>(value));
      }
    }
  }
}

template <typename R>
void assemble_tokens_backward(const AssembleTokensBackward<R>& arguments) {
  const TokenShape& shape = arguments.shape;
  const auto width = static_cast<std::size_t>(shape.width);
  std::vector<double> sums(static_cast<std::size_t>(shape.tokens()) * width), bias(width);
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      for (std::int64_t c = 0; c < shape.width; ++c) {
        const float gradient =
            to_float(arguments.d_tokens[(b * shape.tokens() + t) * shape.width + c]);
        sums[static_cast<std::size_t>(t * shape.width + c)] += gradient;
        if (t < shape.prefix) continue;
        bias[static_cast<std::size_t>(c)] += gradient;
        arguments.d_patches[(b * shape.patches + t - shape.prefix) * shape.width + c] =
            from_float<bfloat16>(gradient);
      }
    }
  }
  for (std::int64_t t = 0; t < shape.prefix; ++t) {
    add_sums(arguments.d_prefix_tokens[t], sums.data() + t * shape.width, shape.width);
  }
  add_sums(arguments.d_pos_embed, sums.data(), shape.tokens() * shape.width);
  add_sums(arguments.d_bias, bias.data(), shape.width);
}

template void patchify(const Patchify<float>&);
template void patchify(const Patchify<bfloat16>&);
template void assemble_tokens(const AssembleTokens<float>&);
template void assemble_tokens(const AssembleTokens<bfloat16>&);
template void assemble_tokens_backward(const AssembleTokensBackward<float>&);
template void assemble_tokens_backward(const AssembleTokensBackward<bfloat16>&);

}  // namespace ablate::kernels::reference
