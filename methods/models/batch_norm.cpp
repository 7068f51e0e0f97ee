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
  const std::int64_t batch = x.size(0);
  const std::int64_t global_batch = state.global_batch > 0 ? state.global_batch : batch;
  const std::int64_t group = group_ > 0 ? std::min(group_, global_batch) : global_batch;
  if (global_batch % group != 0) {
    throw SpecError(cat("bn_group = ", group, " does not divide global_batch = ", global_batch,
                        ": choose a divisor"));
  }
  ABLATE_CHECK(group * x.size(2) * x.size(3) > 1, "one value a channel has no variance");
  begin_pass(state.step, global_batch / group);
  if (batch % group == 0 && state.first_position % group == 0) {
    return normalize_local(x, group, state.first_position / group);
  }
  Communicator* ranks = state.bn_communicator;
  ABLATE_CHECK(
      ranks && batch * ranks->size() == group &&
          state.first_position == state.first_position / group * group + ranks->rank() * batch,
      "images ", state.first_position, " to ", state.first_position + batch,
      " of the global batch are neither whole groups of ", group, " nor this rank's share of one");
  if (ranks->rank() == 0) return normalize_shared(x, state.first_position / group, *ranks);
  return normalize_shared(x, -1, *ranks);
}

at::Tensor GroupBatchNorm2d::normalize_local(const at::Tensor& x, std::int64_t group,
                                             std::int64_t first_group) {
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < x.size(0) / group; ++i) {
    // With momentum 1 the running statistics are those of this group, the variance unbiased.
    at::Tensor mean = at::zeros_like(running_mean), var = at::zeros_like(running_var);
    parts.push_back(std::get<0>(at::native_batch_norm(x.narrow(0, i * group, group), weight, bias,
                                                      mean, var, true, 1.0, kEps)));
    note(mean, var, first_group + i);
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

at::Tensor GroupBatchNorm2d::normalize_shared(const at::Tensor& x, std::int64_t group_index,
                                              Communicator& ranks) {
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
    if (group_index >= 0) note(mean, var * (count / (count - 1)), group_index);
  }
  return SharedNormalization::apply(x, weight, bias, mean.to(x.scalar_type()),
                                    var.to(x.scalar_type()), &ranks);
}

void GroupBatchNorm2d::begin_pass(std::int64_t step, std::int64_t groups_in_step) {
  if (step == last_step_ && groups_in_step == groups_in_step_) return;
  const double keep = std::pow(1.0 - kMomentum, static_cast<double>(groups_in_step));
  if (!share_.defined())
    share_ = at::zeros({2, running_mean.size(0)}, running_mean.options().dtype(at::kDouble));
  share_.mul_(keep);
  decay_ *= keep;
  updates_ += groups_in_step;
  last_step_ = step;
  groups_in_step_ = groups_in_step;
}

void GroupBatchNorm2d::note(const at::Tensor& mean, const at::Tensor& unbiased_var,
                            std::int64_t group_index) {
  const at::NoGradGuard no_grad;
  const auto later = static_cast<double>(groups_in_step_ - 1 - group_index);
  share_.add_(at::stack({mean, unbiased_var}).to(at::kDouble),
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
