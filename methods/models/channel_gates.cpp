#include "methods/models/channel_gates.h"

#include <algorithm>
#include <utility>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

constexpr double kHighestScore = 2.0;  // what is removed can come back, what stays can go

std::string stack_name(std::string_view what, std::size_t stack) { return cat(what, "_", stack); }

}  // namespace

ChannelGates::ChannelGates(std::vector<Seat> seats, Params& params)
    : seats_(std::move(seats)),
      rule_(GateRule::read(params)),
      lr_factor_(params.number("lr_factor", 1.0, 0.0, 1e6,
                               "learning rate of scores over that of the weights")),
      budget_(register_buffer("budget", at::ones({}))) {
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    auto stack = std::ranges::find(stacks_, seats_[i], &Stack::shape);
    if (stack == stacks_.end()) stack = stacks_.insert(stack, {seats_[i], {}, {}, {}});
    rows_.push_back({static_cast<std::size_t>(stack - stacks_.begin()), std::ssize(stack->seats)});
    stack->seats.push_back(i);
  }
  for (std::size_t i = 0; i < stacks_.size(); ++i) {
    Stack& stack = stacks_[i];
    const std::vector<std::int64_t> shape{std::ssize(stack.seats), stack.shape.rows(),
                                          stack.shape.width};
    stack.scores = register_parameter(stack_name("scores", i), at::ones(shape));
    stack.weights = register_buffer(stack_name("weights", i), at::ones(shape));
    count_order_.insert(count_order_.end(), stack.seats.begin(), stack.seats.end());
  }
}

GateRule ChannelGates::rule_of(const Seat& seat) const {
  GateRule rule = rule_;
  if (seat.shared) rule.width_multiple = rule_.step(seat.heads);
  return rule;
}

std::vector<at::Tensor> ChannelGates::forward() {
  std::vector<at::Tensor> gates(seats_.size()), counts;
  for (const Stack& stack : stacks_) {
    const auto& [heads, width, shared] = stack.shape;
    const GateRule rule = rule_of(stack.shape);
    const at::Tensor scores = stack.scores * stack.weights;
    const at::Tensor rows = straight_through(scores, decide_gates(scores, rule), rule);
    const at::Tensor all =
        rows.expand({-1, heads, -1}).reshape({std::ssize(stack.seats), heads * width});
    counts.push_back(all.sum(1));
    const auto each = all.unbind(0);
    for (std::size_t i = 0; i < each.size(); ++i) gates[stack.seats[i]] = each[i];
  }
  if (is_training() && at::GradMode::is_enabled()) counts_ = at::cat(counts);
  return gates;
}

at::Tensor ChannelGates::take_counts() {
  ABLATE_CHECK(counts_.defined(), "no training pass before, or counts taken twice");
  return std::exchange(counts_, {});
}

at::Tensor ChannelGates::scores(std::size_t seat) const {
  return stacks_[rows_[seat].stack].scores.detach().select(0, rows_[seat].row);
}

at::Tensor ChannelGates::weights(std::size_t seat) const {
  return stacks_[rows_[seat].stack].weights.select(0, rows_[seat].row);
}

std::map<std::string, ParameterSettings> ChannelGates::parameter_settings() const {
  std::map<std::string, ParameterSettings> settings;
  for (std::size_t i = 0; i < stacks_.size(); ++i) {
    settings[stack_name("scores", i)] = {.lr_factor = lr_factor_,
                                         .decay_factor = 0.0,
                                         .clamp_low = 0.0,
                                         .clamp_high = kHighestScore};
  }
  return settings;
}

}  // namespace ablate
