#include "methods/models/ops_grid.h"

#include <cmath>

#include "methods/models/fused/focused_attention.h"
#include "runner/core/error.h"

namespace ablate::ops {
namespace {

constexpr bool kGridFusable = ABLATE_HAS_CUDA != 0;
constexpr double kFocusEps = 1e-6;

std::int64_t side_of(const at::Tensor& tokens) {
  const auto side = std::llround(std::sqrt(static_cast<double>(tokens.size(1))));
  ABLATE_CHECK(side * side == tokens.size(1), tokens.size(1), " tokens are no square map");
  return side;
}

/// (B, N, H d) -> (B, H, N, d).
at::Tensor by_head(const at::Tensor& x, std::int64_t heads) {
  return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
}

}  // namespace

at::Tensor as_stream(const at::Tensor& x, const ForwardState& state) {
  return state.fused ? x.to(at::kFloat) : x;
}

at::Tensor as_activation(const at::Tensor& x, const ForwardState& state) {
  return state.fused ? x.to(at::kBFloat16) : x;
}

at::Tensor map_of(const at::Tensor& tokens, std::int64_t height) {
  if (height == 0) height = side_of(tokens);
  return tokens.unflatten(1, {height, tokens.size(1) / height}).permute({0, 3, 1, 2});
}

at::Tensor tokens_of(const at::Tensor& map) { return map.permute({0, 2, 3, 1}).flatten(1, 2); }

at::Tensor patch_conv(const at::Tensor& map, const Conv2d& conv) {
  const std::int64_t batch = map.size(0), channels = map.size(1), patch = conv.stride(),
                     rows = map.size(2) / patch, columns = map.size(3) / patch;
  ABLATE_CHECK(rows * patch == map.size(2) && columns * patch == map.size(3) && conv.padding() == 0,
               "patches of side ", patch, " in a map of ", map.sizes());
  // Channels last within a patch: that is how tokens have them.
  const at::Tensor patches = map.reshape({batch, channels, rows, patch, columns, patch})
                                 .permute({0, 2, 4, 3, 5, 1})
                                 .reshape({batch, rows * columns, patch * patch * channels});
  const at::Tensor weight = like(conv.weight, map).permute({0, 2, 3, 1}).flatten(1);
  return ablate::linear(patches, weight, like(conv.bias, map));
}

at::Tensor map_conv(const at::Tensor& map, const Conv2d& conv) {
  const at::Tensor input = map.contiguous(at::MemoryFormat::ChannelsLast);
  return tokens_of(at::conv2d(input, like(conv.weight, map), like(conv.bias, map), conv.stride(),
                              conv.padding()));
}

at::Tensor depthwise_conv(const at::Tensor& tokens, const Conv2d& conv, std::int64_t height) {
  const std::int64_t channels = tokens.size(2), shared = channels / conv.weight.size(0);
  ABLATE_CHECK(shared * conv.weight.size(0) == channels, channels, " channels, kernels of ",
               conv.weight.size(0));
  const at::Tensor weight = like(conv.weight, tokens).repeat({shared, 1, 1, 1});
  const at::Tensor bias = like(conv.bias, tokens).repeat({shared});
  return tokens_of(
      at::conv2d(map_of(tokens, height), weight, bias, conv.stride(), conv.padding(), 1, channels));
}

at::Tensor merge_neighbours(const at::Tensor& tokens, std::int64_t height) {
  if (height == 0) height = side_of(tokens);
  const std::int64_t batch = tokens.size(0), width = tokens.size(1) / height,
                     channels = tokens.size(2);
  return tokens.view({batch, height / 2, 2, width / 2, 2, channels})
      .permute({0, 1, 3, 4, 2, 5})
      .reshape({batch, height / 2 * (width / 2), 4 * channels});
}

at::Tensor window_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                            const at::Tensor& bias) {
  const auto parts = unpack_heads(qkv, heads);
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads.scale_width));
  const at::Tensor products = at::matmul(parts[0], parts[1].transpose(-2, -1));
  const at::Tensor logits =
      at::add(like(bias, qkv), products.unflatten(0, {-1, bias.size(0)}), scale).flatten(0, 1);
  const at::Tensor mixed = at::matmul(logits.softmax(-1), parts[2]);
  return mixed.transpose(1, 2).flatten(2);
}

at::Tensor focus(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gate,
                 std::int64_t p) {
  const at::Tensor precise = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  at::Tensor u = (precise.relu() + kFocusEps) / scale;
  if (gate.defined()) u = u * gate.to(u.scalar_type());
  // Powers of what is at most 1 do not all vanish, and y does not depend on this factor.
  const at::Tensor powers = (u / u.detach().amax(-1, /*keepdim=*/true)).pow(p);
  const at::Tensor gain = u.norm(2, {-1}, true) / powers.norm(2, {-1}, true);
  return (powers * gain).to(x.scalar_type());
}

at::Tensor linear_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t heads) {
  const at::Tensor queries = by_head(q, heads), keys = by_head(k, heads);
  const auto tokens = static_cast<double>(q.size(1));
  const at::Tensor normaliser =
      at::matmul(queries, keys.mean(2, /*keepdim=*/true).transpose(2, 3)) + kFocusEps;
  const at::Tensor mixture = at::matmul(keys.transpose(2, 3), by_head(v, heads)) / tokens;
  const at::Tensor mixed = at::matmul(queries, mixture) / normaliser;
  return mixed.transpose(1, 2).flatten(2);
}

bool focused_attention_fusable(std::int64_t head_dim, std::int64_t kernel_side,
                               const ForwardState& state) {
  if constexpr (kGridFusable) {
    return state.fused && fused::focused_attention_supported(head_dim, kernel_side);
  }
  return false;
}

at::Tensor focused_attention(const at::Tensor& qkv, const FocusedAttention& attention,
                             const ForwardState& state) {
  ABLATE_CHECK(kGridFusable && state.fused, "the fused form in a plain pass");
  if constexpr (kGridFusable) return fused::focused_attention(qkv, attention);
  return {};
}

}  // namespace ablate::ops
