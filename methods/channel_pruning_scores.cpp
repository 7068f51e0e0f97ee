#include <algorithm>
#include <map>

#include "methods/channel_pruning.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate::methods::channel_pruning {
namespace {

constexpr double kLowestStart = 0.8, kStartSpread = 0.4;

/// (heads, width) of a group as (rows, width) of its seat.
at::Tensor to_rows(const at::Tensor& values, const ChannelSeat& seat) {
  return seat.shared ? values.mean(0, /*keepdim=*/true) : values;
}

/// Brings values of groups of different kinds to one scale.
at::Tensor over_mean(const at::Tensor& values) {
  const double mean = values.abs().mean().item<double>();
  return mean > 0 ? values / mean : values;
}

/// For each seat the sum over its groups of `value(site)`, (heads, width).
template <typename ValueOf>
SeatValues sum_over_groups(const Seats& seats, const ValueOf& value) {
  SeatValues sums;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    at::Tensor sum;
    for (const ChannelSite& site : seats.sites[i]) {
      const at::Tensor rows = to_rows(value(site), seats.places[i]);
      sum = sum.defined() ? sum + rows : rows;
    }
    sums.push_back(sum);
  }
  return sums;
}

SeatValues ones(const Seats& seats) {
  SeatValues values;
  for (std::size_t i = 0; i < seats.sites.size(); ++i) {
    const ChannelGroup& group = *seats.sites[i].front().group;
    const std::int64_t rows = seats.places[i].shared ? 1 : group.heads;
    values.push_back(at::ones({rows, group.width}, at::kDouble));
  }
  return values;
}

/// Uniform numbers that depend on nothing but seed and place.
at::Tensor random_values(const ChannelSite& site, std::uint64_t seed) {
  RandomStream stream(seed, Purpose::Method,
                      hash64(cat("channel_pruning/", site.place.block, "/", site.place.group)));
  at::Tensor values = at::empty({site.group->heads, site.group->width}, at::kDouble);
  double* data = values.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) data[i] = stream.uniform(0.0, 1.0);
  return values;
}

/// 0.8 to 1.2 by rank in each row, ties by index.
at::Tensor spread_by_rank(const at::Tensor& importance) {
  const std::int64_t width = importance.size(1);
  const at::Tensor order = at::argsort(importance, /*stable=*/true, 1, /*descending=*/false);
  const at::Tensor rank = at::argsort(order, /*stable=*/true, 1, /*descending=*/false);
  const auto last = static_cast<double>(std::max<std::int64_t>(width - 1, 1));
  return kLowestStart + kStartSpread / last * rank.to(at::kDouble);
}

std::vector<ChannelSite> all_sites(const Seats& seats) {
  std::vector<ChannelSite> sites;
  for (const auto& seat : seats.sites) sites.insert(sites.end(), seat.begin(), seat.end());
  return sites;
}

at::Tensor vectors_of(const at::Tensor& rows, const ChannelGroup& group) {
  return rows.detach().to(at::kDouble).view({group.heads, group.width, rows.size(1)});
}

/// How much each channel's weights are like those of its head mates, (heads, width).
at::Tensor likeness_of_weights(const ChannelSite& site, SimilarityForm::Reduce reduce) {
  at::Tensor sum;
  const auto writers = site.owner->writers(*site.group);
  for (const at::Tensor& rows : writers) {
    const at::Tensor one = likeness(cosines_of_vectors(vectors_of(rows, *site.group)), reduce);
    sum = sum.defined() ? sum + one : one;
  }
  return sum / static_cast<double>(writers.size());
}

at::Tensor likeness_of_activations(const ChannelStatistics& sums, SimilarityForm::Reduce reduce) {
  if (!sums.query_gram.defined()) return likeness(cosines_of_gram(sums.output_gram), reduce);
  // The Frobenius cosine of the attention patterns that two channels draw.
  return likeness(cosines_of_gram(sums.query_gram) * cosines_of_gram(sums.key_gram), reduce);
}

/// Importance of the channels by the attention maps, or outputs, of the dense model.
SeatValues attention_importance(TrainContext& context, const Seats& seats,
                                const Settings& settings) {
  const bool single = settings.start == Start::SingleChannel;
  const auto statistics = channel_statistics(context, all_sites(seats), settings.split,
                                             settings.samples, {.shares = true, .singles = single});
  return sum_over_groups(seats, [&](const ChannelSite& site) {
    const ChannelStatistics& sums = statistics.at(site.group);
    if (site.group->role == ChannelRole::QueryKey) {
      return over_mean(single ? -sums.single_distance : sums.own_share);
    }
    return over_mean(sums.own_share * reader_norms(site));
  });
}

SeatValues starting_importance(TrainContext& context, const Seats& seats,
                               const Settings& settings) {
  if (settings.start == Start::Random) {
    return sum_over_groups(
        seats, [&](const ChannelSite& site) { return random_values(site, context.seed()); });
  }
  if (settings.start == Start::Magnitude) {
    return sum_over_groups(
        seats, [](const ChannelSite& site) { return over_mean(weight_magnitude(site)); });
  }
  return attention_importance(context, seats, settings);
}

}  // namespace

SeatValues similarity_factors(TrainContext& context, const Seats& seats, const Settings& settings) {
  const SimilarityForm& form = settings.similarity;
  if (form.source == SimilaritySource::None) {
    return ones(seats);
  }
  std::map<const ChannelGroup*, ChannelStatistics> statistics;
  if (form.source == SimilaritySource::Activations) {
    statistics = channel_statistics(context, all_sites(seats), settings.split, settings.samples,
                                    {.grams = true});
  }
  SeatValues factors = sum_over_groups(seats, [&](const ChannelSite& site) {
    return form.source == SimilaritySource::Weights
               ? likeness_of_weights(site, form.reduce)
               : likeness_of_activations(statistics.at(site.group), form.reduce);
  });
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const auto groups = static_cast<double>(seats.sites[i].size());
    factors[i] = similarity_weights(factors[i] / groups, form.weight);
  }
  return factors;
}

SeatValues starting_scores(TrainContext& context, const Seats& seats, const Settings& settings) {
  const auto applies = [&](std::size_t seat) {
    const ChannelGroup& group = *seats.sites[seat].front().group;
    return settings.start != Start::Constant &&
           (settings.start_everywhere || group.linear_attention);
  };
  SeatValues scores = ones(seats), importance;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (!applies(i)) continue;
    if (importance.empty()) importance = starting_importance(context, seats, settings);
    scores[i] = spread_by_rank(importance[i]);
  }
  return scores;
}

SeatValues baseline_scores(TrainContext& context, const Seats& seats, const Settings& settings) {
  if (settings.criterion == Criterion::Taylor) {
    const auto importance =
        taylor_importance(context, all_sites(seats), settings.split, settings.samples);
    return sum_over_groups(seats,
                           [&](const ChannelSite& site) { return importance.at(site.group); });
  }
  return sum_over_groups(seats, [&](const ChannelSite& site) {
    return settings.criterion == Criterion::Magnitude ? over_mean(weight_magnitude(site))
                                                      : random_values(site, context.seed());
  });
}

}  // namespace ablate::methods::channel_pruning
