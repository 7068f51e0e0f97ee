#include "methods/channel_pruning.h"

namespace ablate::methods::channel_pruning {

BudgetPenalty::BudgetPenalty(const ChannelCosts& costs, double dense, const ChannelGates& gates,
                             const Settings& settings)
    : loss_(settings.budget_loss),
      lambda_(settings.lambda),
      dense_(dense),
      fixed_(costs.fixed / dense) {
  const std::vector<std::size_t>& order = gates.count_order();
  const auto count = static_cast<std::int64_t>(order.size());
  std::vector<std::int64_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<std::int64_t>(i);
  const at::Tensor linear = at::zeros({count}, at::kDouble);
  const at::Tensor quadratic = at::zeros({count, count}, at::kDouble);
  bool products = false;
  for (const CostTerm& term : costs.terms) {
    const double share = term.macs / dense;
    if (term.second) {
      quadratic[place[term.first]][place[*term.second]] += share;
      products = true;
    } else {
      linear[place[term.first]] += share;
    }
  }
  const at::TensorOptions options = gates.budget().options();
  linear_ = linear.to(options);
  if (products) quadratic_ = quadratic.to(options);
}

at::Tensor BudgetPenalty::of(const at::Tensor& counts, const at::Tensor& aim) const {
  at::Tensor cost = (linear_ * counts).sum() + fixed_;
  if (quadratic_.defined()) {
    cost = cost + (counts.unsqueeze(1) * quadratic_ * counts.unsqueeze(0)).sum();
  }
  const at::Tensor excess = cost / aim - 1.0;
  switch (loss_) {
    case BudgetLoss::Squared:
      return lambda_ * excess.square();
    case BudgetLoss::OneSided:
      return lambda_ * at::relu(excess).square();
    case BudgetLoss::Absolute:
      return lambda_ * excess.abs();
    case BudgetLoss::Gmacs:
      return lambda_ * ((cost - aim) * (dense_ / 1e9)).square();
  }
  return {};
}

}  // namespace ablate::methods::channel_pruning
