#include "methods/models/layer_attention.h"

#include <algorithm>
#include <array>
#include <utility>

#include "methods/models/drop_path.h"
#include "methods/models/uncounted.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr std::array<std::pair<SkipMode, std::string_view>, 5> kSkipModes{{
    {SkipMode::None, "none"},
    {SkipMode::Drop, "drop"},
    {SkipMode::KeepKeys, "keep_keys"},
    {SkipMode::Reuse, "reuse"},
    {SkipMode::Recur, "recur"},
}};

constexpr const char* kChild = "layer_attention";

/// In or out of training. One that leaves must not keep the buffer alive of which it was a view.
void set_trained(at::Tensor& parameter, bool trained) {
  if (parameter.requires_grad() == trained) return;
  parameter.set_requires_grad(trained);
  if (trained) return;
  parameter.mutable_grad().reset();
  const at::NoGradGuard no_grad;
  parameter.set_data(parameter.clone());
}

bool is_part(const std::string& parameter, const std::vector<std::string>& parts) {
  return std::ranges::any_of(parts, [&](const std::string& part) {
    return parameter == part || parameter.starts_with(part + ".");
  });
}

}  // namespace

std::string_view skip_mode_name(SkipMode mode) {
  return kSkipModes[static_cast<std::size_t>(mode)].second;
}

SkipMode skip_mode_named(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& [mode, its_name] : kSkipModes) {
    if (its_name == name) return mode;
    known.push_back(its_name);
  }
  throw Error(cat("unknown skip mode \"", name, "\"; known: ", join(known)));
}

std::string layer_attention_name(const LayerPlace& place) { return cat(place.name, ".", kChild); }

void LayerAttention::set_skip(SkipMode mode) {
  ABLATE_CHECK(!reduced_ && (mode == SkipMode::None || can_skip(mode)), "skip mode ",
               skip_mode_name(mode));
  skip_ = mode;
  const std::vector<std::string> idle = unused(mode);
  for (auto& item : named_parameters()) set_trained(item.value(), !is_part(item.key(), idle));
}

bool LayerAttention::delete_unused() {
  const std::vector<std::string> idle = unused(skip_);
  if (idle.empty() || reduced_) return false;
  for (const std::string& name : idle) {
    if (parameters_.contains(name)) {
      parameters_.erase(name);
    } else {
      unregister_module(name);
    }
  }
  forget(idle);
  reduced_ = true;
  return true;
}

void LayerSite::set_layer_attention(std::shared_ptr<LayerAttention> module) {
  if (layer_attention_) unregister_module(kChild);
  layer_attention_ = std::move(module);
  if (layer_attention_) register_module(kChild, layer_attention_);
}

void LayerSite::begin_history(ForwardState& state) const {
  auto& history = state.layer_history;
  const int group = layer_attention_->group();
  if (history && history->group == group) return;
  history = std::make_shared<LayerHistory>();
  history->group = group;
}

at::Tensor LayerSite::attend(const at::Tensor& x, const at::Tensor& previous,
                             ForwardState& state) const {
  begin_history(state);
  return layer_attention_->forward(x, previous, state);
}

void LayerSite::shadow(const at::Tensor& x, ForwardState& state) const {
  const at::NoGradGuard no_grad;
  const UncountedScope uncounted;
  begin_history(state);
  layer_attention_->shadow(x, state);
}

at::Tensor LayerSite::drop_scale(const at::Tensor& x, const ForwardState& state) const {
  const double rate = layer_attention_->drop_path();
  if (!is_training() || rate == 0.0) return {};
  const std::string name = layer_attention_name(place_);
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  const auto ahead = state.join_numbers.find(name);
  if (ahead != state.join_numbers.end()) {
    return ahead->second.scale.view(shape).to(x.scalar_type());
  }
  if (x.is_cuda()) {
    throw Error(cat(name,
                    ": drop-path on a device takes scales that were computed ahead of the "
                    "pass, and there are none; set drop_path = 0, or device = \"cpu\""));
  }
  return drop_path_scale(name, rate, 1.0, x.size(0), x.options(), state).view(shape);
}

}  // namespace ablate
