#include "methods/models/reweight.h"

#include "methods/models/ops.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

class DynamicReweight final : public Reweight {
 public:
  DynamicReweight(std::int64_t channels, std::int64_t hidden)
      : fc1_(register_module("fc1", std::make_shared<Linear>(channels, hidden))),
        fc2_(register_module("fc2", std::make_shared<Linear>(hidden, channels))) {
    const at::NoGradGuard no_grad;
    for (at::Tensor* start : {&fc1_->bias, &fc2_->weight, &fc2_->bias}) start->zero_();
  }

  at::Tensor forward(const at::Tensor& x, const ChannelGroup& group, ForwardState& state) override {
    const at::Tensor mean = x.mean(1, /*keepdim=*/true);
    const at::Tensor hidden = at::relu(ops::linear(mean, *fc1_, state));
    spend_on_channels(group, 2.0 * static_cast<double>(mean.size(0) * hidden.size(2)), state);
    return x * (2.0 * at::sigmoid(ops::linear(hidden, *fc2_, state)));
  }

  void keep_channels(const ChannelGroup&, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override {
    slicer.slice(fc1_->weight, 1, kept);
    slicer.slice(fc2_->weight, 0, kept);
    slicer.slice(fc2_->bias, 0, kept);
  }

  at::Tensor constant_factor(const ChannelGroup&) const override { return {}; }

 private:
  std::shared_ptr<Linear> fc1_, fc2_;
};

class ConstantReweight final : public Reweight {
 public:
  explicit ConstantReweight(std::int64_t count)
      : factor_(register_parameter("factor", at::ones({count}))) {}

  at::Tensor forward(const at::Tensor& x, const ChannelGroup& group, ForwardState&) override {
    return x * constant_factor(group).to(x.scalar_type());
  }

  void keep_channels(const ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override {
    if (factor_.size(0) == group.channels()) slicer.slice(factor_, 0, kept);
  }

  at::Tensor constant_factor(const ChannelGroup& group) const override {
    return factor_.repeat_interleave(group.channels() / factor_.size(0));
  }

 private:
  at::Tensor factor_;
};

}  // namespace

std::shared_ptr<Reweight> make_reweight(const std::string& kind, const ChannelGroup& group,
                                        std::int64_t hidden) {
  if (kind == "dynamic") return std::make_shared<DynamicReweight>(group.channels(), hidden);
  if (kind == "static") return std::make_shared<ConstantReweight>(group.channels());
  if (kind == "head") return std::make_shared<ConstantReweight>(group.heads);
  throw Error(cat("unknown reweighting \"", kind, "\"; known: dynamic, static, head"));
}

}  // namespace ablate
