#include "methods/models/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

at::Tensor per_channel(const at::Tensor& values) { return values.view({1, -1, 1, 1}); }

/// Normalises with given statistics of a group that several ranks share; the backward adds the two
/// sums of the batch-norm gradient over these ranks:
///
///   dx = w / sd (dy - mean(dy) - xc mean(dy xc) / sd^2),  xc = x - mean
class SharedNormalization : public torch::autograd::Function<SharedNormalization> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& mean, const at::Tensor& var, Communicator* ranks) {
    context->save_for_backward({x, weight, mean, var});
    context->saved_data["ranks"] = reinterpret_cast<std::int64_t>(ranks);
    return std::get<0>(
        at::native_batch_norm(x, weight, bias, mean, var, false, 0.0, GroupBatchNorm2d::kEps));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &var = saved[3];
    auto& ranks = *reinterpret_cast<Communicator*>(context->saved_data["ranks"].toInt());
    const at::Tensor& dy = grads[0];
    const at::Tensor centered = x - per_channel(mean);
    const at::Tensor inverse = (var + GroupBatchNorm2d::kEps).rsqrt();
    const at::Tensor sum_dy = dy.sum({0, 2, 3});
    const at::Tensor sum_dy_xc = (dy * centered).sum({0, 2, 3});

    at::Tensor sums = at::stack({sum_dy, sum_dy_xc}).to(at::kDouble);
    ranks.all_reduce(sums);
    const auto count = static_cast<double>(x.numel() / x.size(1) * ranks.size());
    const at::Tensor means = (sums / count).to(x.scalar_type());
    const at::Tensor slope = means[1] * inverse * inverse;
    const at::Tensor dx = (dy - per_channel(means[0]) - centered * per_channel(slope)) *
                          per_channel(weight * inverse);
    return {dx, sum_dy_xc * inverse, sum_dy, {}, {}, {}};
  }
};

}  // namespace

GroupBatchNorm2d::GroupBatchNorm2d(std::int64_t channels, std::int64_t group)
    : weight(register_parameter("weight", at::ones({channels}))),
      bias(register_parameter("bias", at::zeros({channels}))),
      running_mean(register_buffer("running_mean", at::zeros({channels}))),
      running_var(register_buffer("running_var", at::ones({channels}))),
      num_batches_tracked(register_buffer("num_batches_tracked", at::zeros({}, at::kLong))),
      group_(group) {}

at::Tensor GroupBatchNorm2d::forward(const at::Tensor& x, const ForwardState& state) {
  if (!is_training()) {
    ABLATE_CHECK(updates_ == 0, "running statistics are not synchronised after training");
    return at::batch_norm(x, weight, bias, running_mean, running_var, false, kMomentum, kEps,
                          /*cudnn_enabled=*/true);
  }
  const GroupSpan span = span_of(x.size(0), state);
  ABLATE_CHECK(span.group * x.size(2) * x.size(3) > 1, "one value a channel has no variance");
  const Sink sink = begin_pass(state, span);
  if (span.local) return normalize_local(x, span, sink);
  Communicator* ranks = state.bn_communicator;
  ABLATE_CHECK(ranks && x.size(0) * ranks->size() == span.group &&
                   state.first_position == span.first * span.group + ranks->rank() * x.size(0),
               "images ", state.first_position, " to ", state.first_position + x.size(0),
               " of the global batch are neither whole groups of ", span.group,
               " nor this rank's share of one");
  return normalize_shared(x, span, *ranks, sink);
}

GroupSpan GroupBatchNorm2d::span_of(std::int64_t batch, const ForwardState& state) const {
  const std::int64_t global_batch = state.global_batch > 0 ? state.global_batch : batch;
  const std::int64_t group = group_ > 0 ? std::min(group_, global_batch) : global_batch;
  if (global_batch % group != 0) {
    throw SpecError(cat("bn_group = ", group, " does not divide global_batch = ", global_batch,
                        ": choose a divisor"));
  }
  return {.group = group,
          .first = state.first_position / group,
          .groups_in_step = global_batch / group,
          .local = batch % group == 0 && state.first_position % group == 0};
}

at::Tensor GroupBatchNorm2d::normalize_local(const at::Tensor& x, const GroupSpan& span,
                                             const Sink& sink) {
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < x.size(0) / span.group; ++i) {
    // With momentum 1 the running statistics are those of this group, the variance unbiased.
    at::Tensor mean = at::zeros_like(running_mean), var = at::zeros_like(running_var);
    parts.push_back(std::get<0>(at::native_batch_norm(x.narrow(0, i * span.group, span.group),
                                                      weight, bias, mean, var, true, 1.0, kEps)));
    sink.note(mean, var, span.first + i);
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

at::Tensor GroupBatchNorm2d::normalize_shared(const at::Tensor& x, const GroupSpan& span,
                                              Communicator& ranks, const Sink& sink) {
  at::Tensor mean, var;
  {
    const at::NoGradGuard no_grad;
    const auto [own_mean, own_var] = at::batch_norm_update_stats(x, {}, {}, 0.0);
    const at::Tensor own = at::stack({own_mean, own_var}).to(at::kDouble);
    at::Tensor all = at::empty({ranks.size(), 2, x.size(1)}, own.options());
    ranks.all_gather(own, all);
    // Equal counts: the variance of the whole is the mean variance plus the variance of the means.
    const at::Tensor means = all.select(1, 0);
    mean = means.mean(0);
    var = all.select(1, 1).mean(0) + (means - mean).square().mean(0);
    const auto count = static_cast<double>(x.numel() / x.size(1) * ranks.size());
    if (ranks.rank() == 0) sink.note(mean, var * (count / (count - 1)), span.first);
  }
  return SharedNormalization::apply(x, weight, bias, mean.to(x.scalar_type()),
                                    var.to(x.scalar_type()), &ranks);
}

GroupBatchNorm2d::Sink GroupBatchNorm2d::begin_pass(const ForwardState& state,
                                                    const GroupSpan& span) {
  if (state.norm_shares) return {state.norm_shares->at(this), span.groups_in_step};
  if (state.step != last_step_ || span.groups_in_step != groups_in_step_) {
    const double keep = std::pow(1.0 - kMomentum, static_cast<double>(span.groups_in_step));
    if (!share_.defined())
      share_ = at::zeros({2, running_mean.size(0)}, running_mean.options().dtype(at::kDouble));
    share_.mul_(keep);
    decay_ *= keep;
    updates_ += span.groups_in_step;
    last_step_ = state.step;
    groups_in_step_ = span.groups_in_step;
  }
  return {share_, span.groups_in_step};
}

void GroupBatchNorm2d::Sink::note(const at::Tensor& mean, const at::Tensor& unbiased_var,
                                  std::int64_t group_index) const {
  const at::NoGradGuard no_grad;
  const auto later = static_cast<double>(groups_in_step - 1 - group_index);
  at::Tensor sum = share;
  sum.add_(at::stack({mean, unbiased_var}).to(at::kDouble),
           kMomentum * std::pow(1.0 - kMomentum, later));
}

void GroupBatchNorm2d::forget_share() {
  share_.reset();
  decay_ = 1.0;
  updates_ = 0;
  last_step_ = -1;
}

void synchronize_running_statistics(torch::nn::Module& module, Communicator& ranks) {
  const at::NoGradGuard no_grad;
  std::vector<GroupBatchNorm2d*> norms;
  std::vector<at::Tensor> shares;
  for (const auto& child : module.modules()) {
    auto* norm = dynamic_cast<GroupBatchNorm2d*>(child.get());
    if (!norm || norm->updates_ == 0) continue;
    norms.push_back(norm);
    shares.push_back(norm->share_.flatten());
  }
  if (norms.empty()) return;
  at::Tensor sum = at::cat(shares);
  ranks.all_reduce(sum);
  std::int64_t offset = 0;
  for (GroupBatchNorm2d* norm : norms) {
    const at::Tensor share = sum.narrow(0, offset, norm->share_.numel()).view_as(norm->share_);
    offset += norm->share_.numel();
    norm->running_mean.copy_(norm->running_mean.to(at::kDouble) * norm->decay_ + share[0]);
    norm->running_var.copy_(norm->running_var.to(at::kDouble) * norm->decay_ + share[1]);
    norm->num_batches_tracked.add_(norm->updates_);
    norm->forget_share();
  }
}

void discard_running_statistics(torch::nn::Module& module) {
  for (const auto& child : module.modules()) {
    if (auto* norm = dynamic_cast<GroupBatchNorm2d*>(child.get())) norm->forget_share();
  }
}

bool groups_are_local(int ranks, std::int64_t bn_group, std::int64_t global_batch,
                      std::int64_t micro_batch) {
  const std::int64_t slice = global_batch / ranks;
  const std::int64_t group = bn_group > 0 ? std::min(bn_group, global_batch) : global_batch;
  const std::int64_t pass = micro_batch > 0 ? micro_batch : slice;
  if (global_batch % group == 0 && pass % group == 0) return true;
  if (global_batch % group == 0 && pass == slice && group % slice == 0) return false;
  throw SpecError(cat("BatchNorm groups of bn_group = ", group,
                      " images do not fit global_batch = ", global_batch, " on ", ranks, " ranks (",
                      slice, " images each) in passes of ", pass,
                      ": choose a bn_group that divides the pass, or one that is a multiple of the "
                      "images of a rank, divides global_batch and runs without micro-batches"));
}

std::unique_ptr<Communicator> make_group_communicator(Communicator& world, std::int64_t bn_group,
                                                      std::int64_t global_batch,
                                                      std::int64_t micro_batch) {
  if (groups_are_local(world.size(), bn_group, global_batch, micro_batch)) return nullptr;
  const std::int64_t group = bn_group > 0 ? std::min(bn_group, global_batch) : global_batch;
  const std::int64_t ranks = group / (global_batch / world.size());
  return world.split(static_cast<int>(world.rank() / ranks), world.rank());
}

}  // namespace ablate
