#include "methods/mrla.h"

#include <cmath>

#include "methods/models/layer_maps.h"
#include "methods/models/ops_grid.h"
#include "methods/models/uncounted.h"
#include "methods/token_merging.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

namespace {

constexpr double kTokenNormEps = 1e-6;
constexpr std::int64_t kValueKernel = 3;

}  // namespace

std::int64_t channel_kernel(std::int64_t channels) {
  const auto half =
      static_cast<std::int64_t>(std::abs((std::log2(static_cast<double>(channels)) + 1.0) / 2.0));
  return half % 2 == 1 ? half : half + 1;
}

MrlaOptions MrlaOptions::read(Params& params, bool relu) {
  MrlaOptions options;
  options.head_dim = params.integer_or("head_dim", "published", std::nullopt, 1, 1 << 20,
                                       "channels of a head; published: 32 on feature maps, 16 on "
                                       "tokens");
  options.drop_path = params.number("drop_path", -1.0, -1.0, 0.99,
                                    "stochastic depth of the branch; -1: as published, 0.2 on "
                                    "feature maps and none on tokens");
  options.relu = params.boolean("relu", relu, "ReLU behind the branch's norm, on feature maps");
  options.class_token =
      params.boolean("class_token", false,
                     "on tokens: add the class token's normalised self to it, as the authors' "
                     "code does");
  return options;
}

std::int64_t MrlaOptions::head_dim_at(const LayerPlace& place) const {
  const std::int64_t dim = head_dim.value_or(place.tokens ? 16 : 32);
  if (place.channels % dim != 0) {
    throw SpecError(cat("head_dim = ", dim, " does not divide the ", place.channels,
                        " channels of ", place.name));
  }
  return dim;
}

double MrlaOptions::drop_path_at(const LayerPlace& place) const {
  if (drop_path >= 0.0) return drop_path;
  return place.tokens ? 0.0 : 0.2;
}

Mrla::Mrla(const LayerPlace& place, const MrlaOptions& options)
    : place_(place),
      head_dim_(options.head_dim_at(place)),
      drop_path_(options.drop_path_at(place)),
      relu_(options.relu && !place.tokens),
      class_token_(options.class_token) {
  const std::int64_t kernel = channel_kernel(place.channels);
  query_ = register_parameter("query", at::empty({1, 1, kernel}));
  key_ = register_parameter("key", at::empty({1, 1, kernel}));
  value_ = register_parameter("value", at::empty({place.channels, 1, kValueKernel, kValueKernel}));
  if (place.tokens) {
    token_norm_ =
        register_module("norm", std::make_shared<LayerNorm>(place.channels, kTokenNormEps));
  } else {
    map_norm_ =
        register_module("norm", std::make_shared<GroupBatchNorm2d>(place.channels, place.bn_group));
  }
}

void Mrla::initialize(std::uint64_t seed, const std::string& name) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(query_.size(2)));
  fill_uniform(query_, seed, name + ".query", bound);
  fill_uniform(key_, seed, name + ".key", bound);
  constexpr double kTaps = kValueKernel * kValueKernel;
  if (on_tokens()) {
    fill_uniform(value_, seed, name + ".value", 1.0 / std::sqrt(kTaps));
  } else {
    // Kaiming normal as the model's other convolutions, whose rule takes C for the fan.
    const double fan_out = kTaps * static_cast<double>(place_.channels);
    fill_normal(value_, seed, name + ".value", std::sqrt(2.0 / fan_out));
  }
}

at::Tensor Mrla::forward(const at::Tensor& x, const at::Tensor& previous, ForwardState& state) {
  const at::Tensor retrieved = retrieve(to_map(x, state), previous, state);
  if (!retrieved.defined()) return {};
  if (on_tokens()) return from_map(retrieved, x, state);
  return relu_ ? ops::batch_norm_relu(retrieved, *map_norm_, state)
               : ops::batch_norm(retrieved, *map_norm_, state);
}

void Mrla::shadow(const at::Tensor& x, ForwardState& state) {
  record_skipped(to_map(x, state), state);
}

void Mrla::record_skipped(const at::Tensor& map, ForwardState& state) {
  const at::NoGradGuard no_grad;
  const UncountedScope uncounted;
  const auto [query, key] = query_and_key(pool_channels(map));
  record_shadow(query, key, state);
}

at::Tensor Mrla::to_map(const at::Tensor& x, const ForwardState& state) const {
  if (!on_tokens()) return x;
  const at::Tensor tokens = state.sources.defined() ? unmerge(x, state.sources) : x;
  return ops::map_of(tokens.slice(1, state.protected_tokens), state.map_height);
}

at::Tensor Mrla::from_map(const at::Tensor& map, const at::Tensor& x,
                          const ForwardState& state) const {
  const std::int64_t prefix = state.protected_tokens;
  at::Tensor tokens = ops::tokens_of(map);
  if (state.sources.defined()) {
    tokens = at::constant_pad_nd(tokens, {0, 0, prefix, 0});
    const MergePlan plan{.positions = state.sources, .tokens = tokens.size(1), .left = x.size(1)};
    tokens = merge_weighted(plan, tokens, {}).first.slice(1, prefix);
  }
  return class_token_ ? at::cat({x.narrow(1, 0, prefix), tokens}, 1)
                      : at::constant_pad_nd(tokens, {0, 0, prefix, 0});
}

Mrla::QueryKey Mrla::query_and_key(const at::Tensor& pooled) const {
  const std::vector<at::Tensor> both = channel_convs(pooled, {query_, key_});
  return {both[0], both[1]};
}

at::Tensor Mrla::key_of(const at::Tensor& pooled) const {
  return channel_convs(pooled, {key_}).front();
}

at::Tensor Mrla::value_of(const at::Tensor& map) const { return depthwise_conv(map, value_); }

at::Tensor Mrla::in_heads(const at::Tensor& channels) const {
  return channels.unflatten(1, {-1, head_dim_});
}

at::Tensor Mrla::logits_of(const at::Tensor& query, const at::Tensor& key) const {
  return in_heads(query * key).sum(2) / std::sqrt(static_cast<double>(head_dim_));
}

void Mrla::forget(const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (part == "query") query_.reset();
    if (part == "key") key_.reset();
    if (part == "value") value_.reset();
    if (part != "norm") continue;
    map_norm_.reset();
    token_norm_.reset();
  }
}

}  // namespace ablate
