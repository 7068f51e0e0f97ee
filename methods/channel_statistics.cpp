#include "methods/channel_statistics.h"

#include <utility>

#include "distributed/communicator.h"
#include "methods/models/ops.h"
#include "methods/models/ops_resize.h"
#include "methods/models/probe.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

at::Tensor heads_by_width(const at::Tensor& values, const ChannelGroup& group) {
  return values.view({group.heads, group.width});
}

void add_channels_to(at::Tensor& sum, const at::Tensor& value) {
  sum = sum.defined() ? sum + value : value;
}

/// Adds up what the groups of a pass show; images of weight 0 are padding.
class ChannelStatisticsObserver final : public ChannelObserver {
 public:
  ChannelStatisticsObserver(StatisticsWish wish,
                            std::map<const ChannelGroup*, ChannelStatistics>& statistics)
      : wish_(wish), statistics_(statistics) {}

  void begin(const at::Tensor& weights) { weights_ = weights; }

  void see(const ChannelGroup& group, ChannelOperand operand, const at::Tensor& x) override {
    const auto found = statistics_.find(&group);
    if (found == statistics_.end()) return;
    const at::Tensor shown = heads_of(x, group);
    if (operand == ChannelOperand::Query) {
      queries_ = shown;
    } else if (operand == ChannelOperand::Key) {
      see_pair(std::exchange(queries_, {}), shown, found->second);
    } else {
      see_output(shown, found->second);
    }
  }

 private:
  /// (B, heads, n, width) in double, zero for padding. A row of x is an image or a window of one,
  /// the windows of an image one after the other.
  at::Tensor heads_of(const at::Tensor& x, const ChannelGroup& group) const {
    const std::int64_t rows = x.size(0);
    const at::Tensor weights = weights_.to(at::kDouble).repeat_interleave(rows / weights_.size(0));
    return (x.detach().to(at::kDouble) * weights.view({rows, 1, 1}))
        .view({rows, x.size(1), group.heads, group.width})
        .transpose(1, 2);
  }

  static at::Tensor gram(const at::Tensor& x) { return at::matmul(x.transpose(2, 3), x); }

  void see_pair(const at::Tensor& queries, const at::Tensor& keys, ChannelStatistics& sums) const {
    ABLATE_CHECK(queries.defined(), "keys were shown before queries");
    if (wish_.shares) {
      // The map is a sum of outer products, one a channel.
      add_channels_to(sums.own_share, (queries.norm(2, {2}) * keys.norm(2, {2})).sum(0));
    }
    if (!wish_.grams && !wish_.singles) return;
    const at::Tensor q = gram(queries), k = gram(keys);
    if (wish_.grams) {
      add_channels_to(sums.query_gram, q.sum(0));
      add_channels_to(sums.key_gram, k.sum(0));
    }
    if (wish_.singles) {
      const at::Tensor products = q * k;
      add_channels_to(sums.single_distance, (products.sum({2, 3}).unsqueeze(2) -
                                             2.0 * products.sum(3) + products.diagonal(0, 2, 3))
                                                .sum(0));
    }
  }

  void see_output(const at::Tensor& output, ChannelStatistics& sums) const {
    if (wish_.shares) add_channels_to(sums.own_share, output.norm(2, {2}).sum(0));
    if (wish_.grams) add_channels_to(sums.output_gram, gram(output).sum(0));
    if (wish_.whole_grams) {
      const at::Tensor rows = output.transpose(1, 2).flatten(0, 1).flatten(1);
      add_channels_to(sums.whole_gram, at::mm(rows.t(), rows));
    }
  }

  StatisticsWish wish_;
  std::map<const ChannelGroup*, ChannelStatistics>& statistics_;
  at::Tensor weights_, queries_;
};

class ChannelCostObserver final : public ChannelObserver {
 public:
  void cost(const ChannelGroup& group, const ChannelGroup* other, double macs) override {
    spent.push_back({&group, other, macs});
  }
  std::vector<SpentOnChannels> spent;
};

void sum_over_ranks(Communicator& communicator, at::Tensor& sum) {
  if (!sum.defined()) return;
  sum = sum.contiguous();
  communicator.all_reduce(sum);
}

}  // namespace

std::vector<ChannelSite> channel_sites(Model& model, bool retiring) {
  std::vector<ChannelSite> sites;
  const std::vector<Block*> blocks = model.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (const auto& [owner, group] : blocks[i]->channel_groups()) {
      const bool goes = blocks[i]->retiring() && group->role != ChannelRole::Hidden;
      if (goes && !retiring) continue;
      sites.push_back({{static_cast<int>(i), group->name}, owner, group});
    }
  }
  return sites;
}

std::vector<SpentOnChannels> probe_channel_costs(Model& model) {
  ChannelCostObserver observer;
  ForwardState state;
  state.channel_observer = &observer;
  probe(model, state);
  return observer.spent;
}

std::map<const ChannelGroup*, ChannelStatistics> channel_statistics(
    TrainContext& context, const std::vector<ChannelSite>& sites, DecisionSplit split,
    std::int64_t samples, StatisticsWish wish) {
  std::map<const ChannelGroup*, ChannelStatistics> statistics;
  for (const ChannelSite& site : sites) statistics[site.group] = {};
  ChannelStatisticsObserver observer(wish, statistics);
  Model& model = context.surgeon().model();
  context.visit(split, samples, [&](const at::Tensor& images, const at::Tensor& weights) {
    ForwardState state;
    state.channel_observer = &observer;
    for (const ChannelSite& site : sites) {
      state.channel_gates[site.group] = at::ones({site.group->channels()}, images.options());
    }
    observer.begin(weights);
    model.forward(images, state);
  });
  for (const ChannelSite& site : sites) {
    ChannelStatistics& sums = statistics[site.group];
    for (at::Tensor* sum : {&sums.query_gram, &sums.key_gram, &sums.output_gram, &sums.whole_gram,
                            &sums.own_share, &sums.single_distance}) {
      sum_over_ranks(context.communicator(), *sum);
    }
  }
  return statistics;
}

namespace {

constexpr std::int64_t kUnlabelled = 255;

/// Cross-entropy of one image, of a dense model the mean over its labelled pixels.
at::Tensor label_loss(const at::Tensor& logits, const at::Tensor& label) {
  if (logits.dim() == 2) {
    return ops::cross_entropy(logits, {.labels = label, .other = {}, .mix = {}});
  }
  const at::Tensor scores = ops::resize_bilinear(logits, label.size(1), label.size(2));
  const at::Tensor known = label != kUnlabelled;
  const at::Tensor classes = (label.to(at::kLong) * known).unsqueeze(1);
  const at::Tensor own = at::log_softmax(scores, 1).gather(1, classes).squeeze(1);
  return -(own * known).sum() / known.sum().clamp_min(1);
}

}  // namespace

std::map<const ChannelGroup*, at::Tensor> taylor_importance(TrainContext& context,
                                                            const std::vector<ChannelSite>& sites,
                                                            DecisionSplit split,
                                                            std::int64_t samples) {
  Model& model = context.surgeon().model();
  const at::TensorOptions options = model.parameters().front().options();
  std::vector<at::Tensor> gates, sums;
  for (const ChannelSite& site : sites) {
    gates.push_back(at::ones({site.group->channels()}, options).requires_grad_());
    sums.push_back(at::zeros({site.group->channels()}, options.dtype(at::kDouble)));
  }
  const auto visit_one = [&](const at::Tensor& image, const at::Tensor& label,
                             const at::Tensor& weight) {
    const at::AutoGradMode with_gradients(true);
    ForwardState state;
    for (std::size_t i = 0; i < sites.size(); ++i) state.channel_gates[sites[i].group] = gates[i];
    const at::Tensor loss = label_loss(model.forward(image, state), label);
    const auto gradients = torch::autograd::grad({loss}, gates);
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < sites.size(); ++i) {
      sums[i] += gradients[i].to(at::kDouble).square() * weight;
    }
  };
  context.visit_labelled(
      split, samples,
      [&](const at::Tensor& images, const at::Tensor& labels, const at::Tensor& weights) {
        // One by one, so that the result does not depend on how images are spread over ranks.
        for (std::int64_t i = 0; i < images.size(0); ++i) {
          visit_one(images.narrow(0, i, 1), labels.narrow(0, i, 1), weights[i].to(at::kDouble));
        }
      });
  std::map<const ChannelGroup*, at::Tensor> importance;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    sum_over_ranks(context.communicator(), sums[i]);
    importance[sites[i].group] = heads_by_width(sums[i], *sites[i].group);
  }
  return importance;
}

at::Tensor weight_magnitude(const ChannelSite& site) {
  const at::NoGradGuard no_grad;
  at::Tensor squares;
  for (const at::Tensor& rows : site.owner->writers(*site.group)) {
    add_channels_to(squares, rows.to(at::kDouble).square().sum(1));
  }
  const at::Tensor columns = site.owner->reader(*site.group);
  if (columns.defined()) add_channels_to(squares, columns.to(at::kDouble).square().sum(0));
  return heads_by_width(squares.sqrt(), *site.group);
}

at::Tensor reader_norms(const ChannelSite& site) {
  const at::NoGradGuard no_grad;
  const at::Tensor columns = site.owner->reader(*site.group);
  return heads_by_width(columns.to(at::kDouble).norm(2, {0}), *site.group);
}

}  // namespace ablate
