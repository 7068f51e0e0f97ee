#pragma once

#include <map>
#include <memory>
#include <vector>

#include "methods/method.h"
#include "methods/models/channels.h"

namespace ablate {

/// A channel group of a model with all that belongs to it.
struct ChannelSite {
  ChannelPlace place;
  ChannelOwner* owner;
  ChannelGroup* group;
};

/// All channel groups of the model's blocks, in order. Those of attentions that are about to be
/// removed only when asked for.
std::vector<ChannelSite> channel_sites(Model& model, bool retiring = false);

/// What one image spends in proportion to the channels of groups, of a pass of probe().
struct SpentOnChannels {
  const ChannelGroup* group;
  const ChannelGroup* other;  ///< null, or a second factor
  double macs;
};
std::vector<SpentOnChannels> probe_channel_costs(Model& model);

/// What a pass over images can tell of the channels of a group. Doubles on the model's device.
struct ChannelStatistics {
  at::Tensor query_gram, key_gram;  ///< (heads, width, width), QueryKey; sums over tokens
  at::Tensor output_gram;           ///< the same of other groups
  at::Tensor whole_gram;            ///< (channels, channels) of those, over all heads together
  /// (heads, width): how far the attention map, or the output, of a head moves without the channel:
  /// the Frobenius norm of what it adds, summed over images.
  at::Tensor own_share;
  /// (heads, width), QueryKey: squared distance of the map from what the channel alone makes of it.
  at::Tensor single_distance;
};

/// Which of them are wanted.
struct StatisticsWish {
  bool grams = false;
  bool whole_grams = false;
  bool shares = false;
  bool singles = false;
};

/// Statistics of the groups of `sites` over the first `samples` training samples (of the holdout
/// when that is decided on), summed over all ranks. Evaluation mode, no augmentation, all gates
/// open.
std::map<const ChannelGroup*, ChannelStatistics> channel_statistics(
    TrainContext& context, const std::vector<ChannelSite>& sites, DecisionSplit split,
    std::int64_t samples, StatisticsWish wish);

/// First-order Taylor importance (Molchanov et al., CVPR 2019), (heads, width) a group: the sum
/// over samples of (sum over tokens of a dL/da)^2, a the gated activation, L the cross-entropy.
std::map<const ChannelGroup*, at::Tensor> taylor_importance(TrainContext& context,
                                                            const std::vector<ChannelSite>& sites,
                                                            DecisionSplit split,
                                                            std::int64_t samples);

/// Norms (heads, width) of the weights of each channel: rows that write it and column that reads
/// it, together.
at::Tensor weight_magnitude(const ChannelSite& site);
/// (heads, width): norms of the columns that read the channels.
at::Tensor reader_norms(const ChannelSite& site);

}  // namespace ablate
