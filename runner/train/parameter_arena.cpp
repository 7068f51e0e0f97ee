#include "runner/train/parameter_arena.h"

#include <algorithm>
#include <set>

#include "methods/models/model.h"
#include "methods/models/parameter_depth.h"
#include "runner/core/error.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

constexpr std::int64_t kAlignment = 256;  // bytes
constexpr std::int64_t kChunk = 16384;    // elements: a chunk's six buffers fit a core's cache

std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

ParameterArena::ParameterArena(Model& model) {
  lay_out(model);
  bind_parameters();
}

namespace {

using Slices = std::vector<Surgeon::ParameterSlice>;

/// Cuts of one parameter made after `generation`.
Slices slices_of(const std::string& parameter, const Slices& slices, std::int64_t generation) {
  Slices later;
  std::ranges::copy_if(slices, std::back_inserter(later), [&](const auto& slice) {
    return slice.generation > generation && slice.parameter == parameter;
  });
  return later;
}

std::vector<std::int64_t> sliced_shape(std::vector<std::int64_t> shape, const Slices& slices) {
  for (const auto& slice : slices) {
    shape[static_cast<std::size_t>(slice.axis)] = std::ssize(slice.index);
  }
  return shape;
}

at::Tensor sliced_values(at::Tensor values, const Slices& slices) {
  for (const auto& slice : slices) {
    const at::Tensor index = at::tensor(slice.index, at::kLong).to(values.device());
    values = values.index_select(slice.axis, index);
  }
  return values;
}

}  // namespace

void ParameterArena::rebuild(Surgeon& surgeon) {
  rebuild(surgeon.model(), surgeon.generation(), surgeon.slices());
}

void ParameterArena::rebuild(Model& model, std::int64_t generation) {
  rebuild(model, generation, {});
}

void ParameterArena::rebuild(Model& model, std::int64_t generation, const Slices& slices) {
  const at::NoGradGuard no_grad;
  struct Survivor {
    const ArenaSegment* old;
    Slices cuts;
  };
  const std::vector<ArenaSegment> old_segments = std::move(segments_);
  std::map<std::string, Survivor> survivors;
  for (const ArenaSegment& old : old_segments) {
    survivors[old.name] = {&old, slices_of(old.name, slices, generation_)};
  }
  segments_.clear();
  lay_out(model);
  for (ArenaSegment& segment : segments_) {
    const auto found = survivors.find(segment.name);
    if (found == survivors.end()) continue;
    const auto& [old, cuts] = found->second;
    ABLATE_CHECK(sliced_shape(old->shape, cuts) == segment.shape, segment.name, " changed from ",
                 join(old->shape, "x"), " to ", join(segment.shape, "x"));
    segment.settings = old->settings;
  }
  bind_parameters();
  for (auto& [name, state] : states_) {
    const at::Tensor old_values = state.values;
    state.values = make_buffer();
    if (state.init == StateInit::Parameters) state.values.copy_(parameters_);
    for (const ArenaSegment& segment : segments_) {
      const auto found = survivors.find(segment.name);
      if (found == survivors.end()) continue;
      const auto& [old, cuts] = found->second;
      const at::Tensor whole = old_values.narrow(0, old->offset, old->numel).view(old->shape);
      part(state.values, segment).copy_(sliced_values(whole, cuts));
    }
  }
  if (working_.defined()) working_ = parameters_.to(at::kBFloat16);
  generation_ = generation;
}

/// Segments from the model; their parameters are not yet moved.
void ParameterArena::lay_out(Model& model) {
  const std::vector<std::string> exempt = model.no_weight_decay();
  const auto settings = model.parameter_settings();
  const auto depths = layers_above(model);
  const auto named = model.named_parameters();
  std::set<const c10::TensorImpl*> seen;
  std::int64_t offset = 0;
  for (std::size_t i = named.size(); i-- > 0;) {
    const at::Tensor& parameter = named[i].value();
    if (!parameter.requires_grad()) continue;
    ABLATE_CHECK(seen.insert(parameter.unsafeGetTensorImpl()).second, named[i].key(),
                 " is one parameter under two names");
    ABLATE_CHECK(parameter.scalar_type() == at::kFloat || parameter.scalar_type() == at::kDouble,
                 named[i].key(), " is ", at::toString(parameter.scalar_type()));
    const std::string& name = named[i].key();
    const bool listed = std::ranges::find(exempt, name) != exempt.end();
    segments_.push_back(
        {.name = name,
         .parameter = parameter,
         .shape = parameter.sizes().vec(),
         .offset = offset,
         .numel = parameter.numel(),
         .decay_exempt = parameter.dim() <= 1 || listed,
         .decay_listed = listed,
         .layers_above = depths.at(name),
         .settings = settings.contains(name) ? settings.at(name) : SegmentSettings{}});
    offset += round_up(parameter.numel(), kAlignment / parameter.element_size());
  }
  ABLATE_CHECK(!segments_.empty(), "a model without parameters to train");
  for (const ArenaSegment& segment : segments_) {
    ABLATE_CHECK(segment.parameter.options().type_equal(segments_[0].parameter.options()),
                 segment.name, " has another type or device than ", segments_[0].name);
  }
  numel_ = offset;
}

at::Tensor ParameterArena::make_buffer() const {
  const at::Tensor& like = segments_[0].parameter;
  const std::int64_t unit = kAlignment / like.element_size();
  const at::Tensor raw = at::zeros({numel_ + unit}, like.options().requires_grad(false));
  const auto address = reinterpret_cast<std::uintptr_t>(raw.const_data_ptr());
  const auto excess = static_cast<std::int64_t>(address % kAlignment) / like.element_size();
  return raw.narrow(0, (unit - excess) % unit, numel_);
}

at::Tensor ParameterArena::part(const at::Tensor& buffer, const ArenaSegment& segment) {
  return buffer.narrow(0, segment.offset, segment.numel).view(segment.parameter.sizes());
}

void ParameterArena::bind_parameters() {
  const at::NoGradGuard no_grad;
  parameters_ = make_buffer();
  gradients_ = make_buffer();
  for (ArenaSegment& segment : segments_) {
    const at::Tensor values = part(parameters_, segment);
    values.copy_(segment.parameter);
    segment.parameter.set_data(values);
    segment.parameter.mutable_grad() = part(gradients_, segment);
  }
  cut_chunks();
}

void ParameterArena::cut_chunks() {
  chunks_.clear();
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const ArenaSegment& segment = segments_[i];
    if (!segment.settings.active) continue;
    for (std::int64_t done = 0; done < segment.numel; done += kChunk) {
      chunks_.push_back({i, segment.offset + done, std::min(kChunk, segment.numel - done)});
    }
  }
}

const ArenaSegment& ParameterArena::segment(std::string_view name) const {
  const auto found = std::ranges::find(segments_, name, &ArenaSegment::name);
  ABLATE_CHECK(found != segments_.end(), "no trained parameter \"", name, "\"");
  return *found;
}

void ParameterArena::configure(std::string_view name, const SegmentSettings& settings) {
  const auto index = static_cast<std::size_t>(&segment(name) - segments_.data());
  segments_[index].settings = settings;
  cut_chunks();
}

const at::Tensor& ParameterArena::state(const std::string& name, StateInit init) {
  const auto [place, is_new] = states_.try_emplace(name, State{{}, init});
  if (is_new) {
    place->second.values = make_buffer();
    if (init == StateInit::Parameters) place->second.values.copy_(parameters_);
  }
  ABLATE_CHECK(place->second.init == init, "state \"", name, "\" asked for with two beginnings");
  return place->second.values;
}

const at::Tensor& ParameterArena::working() {
  if (!working_.defined()) {
    working_ = parameters_.to(at::kBFloat16);
  }
  return working_;
}

void ParameterArena::refresh_working() {
  if (working_.defined()) working_.copy_(parameters_);
}

void ParameterArena::zero_grad() {
  const auto* values = static_cast<const char*>(parameters_.const_data_ptr());
  const auto* grads = static_cast<const char*>(gradients_.const_data_ptr());
  for (const ArenaSegment& segment : segments_) {
    const std::int64_t bytes = segment.offset * parameters_.element_size();
    ABLATE_CHECK(segment.parameter.const_data_ptr() == values + bytes, segment.name,
                 " left the parameter buffer");
    const at::Tensor& grad = segment.parameter.grad();
    ABLATE_CHECK(grad.defined() && grad.const_data_ptr() == grads + bytes, "the gradient of ",
                 segment.name, " left the gradient buffer");
  }
  gradients_.zero_();
}

void ParameterArena::for_each(const Visitor& visit) {
  const at::NoGradGuard no_grad;
  for (const ArenaSegment& segment : segments_) {
    visit("", segment, part(parameters_, segment));
    for (const auto& [name, state] : states_) visit(name, segment, part(state.values, segment));
  }
}

std::vector<GradientSegment> ParameterArena::gradient_segments() const {
  std::vector<GradientSegment> result;
  for (const ArenaSegment& segment : segments_) {
    result.push_back({segment.name, segment.offset, segment.numel, segment.settings.active});
  }
  return result;
}

std::vector<at::Tensor> ParameterArena::parameter_tensors() const {
  std::vector<at::Tensor> result;
  for (const ArenaSegment& segment : segments_) result.push_back(segment.parameter);
  return result;
}

}  // namespace ablate
