#include "runner/measure/mac_counter.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string_view>

#include "methods/models/probe.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

using Inputs = c10::ArrayRef<const c10::IValue>;

at::Tensor tensor(const Inputs& inputs, std::size_t index) { return inputs[index].toTensor(); }

/// (.., k) by the transpose of (m, k).
std::int64_t linear_layer(const Inputs& inputs) {
  return tensor(inputs, 0).numel() * tensor(inputs, 1).size(0);
}

/// (.., n, k) x (k, m), or batched (b, n, k) x (b, k, m): operands at `index` and the next.
std::int64_t product(const Inputs& inputs, std::size_t index) {
  return tensor(inputs, index).numel() * tensor(inputs, index + 1).size(-1);
}

/// Matrix at `index` by vector at the next.
std::int64_t matrix_vector(const Inputs& inputs, std::size_t index) {
  return tensor(inputs, index).numel();
}

/// input, weight, bias, stride, padding, dilation, transposed, output_padding, groups.
std::int64_t convolution(const Inputs& inputs) {
  const at::Tensor x = tensor(inputs, 0), weight = tensor(inputs, 1);
  std::int64_t positions = x.size(0);
  const bool transposed = inputs[6].toBool();
  const auto stride = inputs[3].toIntVector(), padding = inputs[4].toIntVector(),
             dilation = inputs[5].toIntVector();
  for (std::int64_t d = 2; d < x.dim(); ++d) {
    const auto axis = [d](const std::vector<std::int64_t>& values) {
      return values[std::min(values.size() - 1, static_cast<std::size_t>(d - 2))];
    };
    const std::int64_t reach = axis(dilation) * (weight.size(d) - 1) + 1;
    positions *=
        transposed ? x.size(d) : (x.size(d) + 2 * axis(padding) - reach) / axis(stride) + 1;
  }
  return positions * weight.numel();
}

/// q (.., n, d), k (.., m, d), v (.., m, e): n m d for the scores, n m e for the mixture.
std::int64_t attention(const Inputs& inputs) {
  const at::Tensor q = tensor(inputs, 0), k = tensor(inputs, 1), v = tensor(inputs, 2);
  return q.numel() / q.size(-1) * k.size(-2) * (q.size(-1) + v.size(-1));
}

using Formula = std::int64_t (*)(const Inputs&);

const std::map<std::string_view, Formula>& formulas() {
  static const std::map<std::string_view, Formula> table = {
      {"aten::linear", linear_layer},
      {"mkldnn::_linear_pointwise", linear_layer},
      {"aten::mm", [](const Inputs& in) { return product(in, 0); }},
      {"aten::bmm", [](const Inputs& in) { return product(in, 0); }},
      {"aten::addmm", [](const Inputs& in) { return product(in, 1); }},
      {"aten::baddbmm", [](const Inputs& in) { return product(in, 1); }},
      {"aten::addbmm", [](const Inputs& in) { return product(in, 1); }},
      {"aten::mv", [](const Inputs& in) { return matrix_vector(in, 0); }},
      {"aten::addmv", [](const Inputs& in) { return matrix_vector(in, 1); }},
      {"aten::dot", [](const Inputs& in) { return matrix_vector(in, 0); }},
      {"aten::convolution", convolution},
      {"aten::scaled_dot_product_attention", attention},
  };
  return table;
}

thread_local MacCounter* active = nullptr;
thread_local int counted_depth = 0;  // operations inside one that is counted are its parts

struct Counted : at::ObserverContext {
  Counted() { ++counted_depth; }
  ~Counted() override { --counted_depth; }
};

}  // namespace

struct MacObserver {
  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    if (counted_depth > 0) return nullptr;
    const auto found = formulas().find(function.name());
    if (found == formulas().end()) return nullptr;
    const std::int64_t macs = found->second(function.inputs());
    for (MacCounter* counter = active; counter; counter = counter->outer_) counter->macs_ += macs;
    return std::make_unique<Counted>();
  }
};

MacCounter::MacCounter() : outer_(active) {
  active = this;
  // One observer serves nested counters.
  if (outer_) return;
  callback_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&MacObserver::start, nullptr)
                                             .needsInputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
}

MacCounter::~MacCounter() {
  active = outer_;
  if (!outer_) at::removeCallback(callback_);
}

ModelCost measure_cost(Model& model) {
  ModelCost cost;
  for (const at::Tensor& parameter : model.parameters()) cost.parameters += parameter.numel();
  ForwardState state;
  const std::vector<Block*> blocks = model.blocks();
  if (!blocks.empty()) state.taps.emplace(blocks.back()->block_name(), at::Tensor());
  {
    const MacCounter counter;
    probe(model, state);
    cost.macs = counter.macs();
  }
  if (!blocks.empty()) cost.final_tokens = state.taps.begin()->second.size(1);
  return cost;
}

}  // namespace ablate
