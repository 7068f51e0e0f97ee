#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/layers.h"
#include "methods/models/slots.h"
#include "methods/models/windows.h"

namespace ablate {

namespace ops {
struct AttentionHeads;
}

/// Softmax attention in cross-shaped windows with local encoding (Dong et al., "CSWin Transformer",
/// CVPR 2022): half of the heads look along stripes of `stripe` columns, the other half along
/// stripes of as many rows; where a stripe is the whole map, all heads look at it. To each output
/// comes a depthwise convolution of the values within its stripe. Children qkv, proj and, for each
/// kind of stripe, get_v0, get_v1. Channel groups: "qk" and "v", or "qk0", "v0", "qk1", "v1".
class CrossWindowAttention final : public TokenMixer {
 public:
  CrossWindowAttention(std::int64_t dim, std::int64_t num_heads, std::int64_t map_side,
                       std::int64_t stripe);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  /// Stripes need the whole map, so nothing could be merged by keys.
  bool provides_keys() const override { return false; }
  void scale_output(double factor) override { proj->scale(factor); }

  std::vector<ChannelGroup*> channel_groups() override;
  std::vector<at::Tensor> writers(const ChannelGroup& group) const override;
  at::Tensor reader(const ChannelGroup& group) const override;
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> qkv, proj;

 private:
  /// Heads that look along the same stripes.
  struct Branch {
    AnyWindows stripes;
    std::shared_ptr<Conv2d> get_v;
    ChannelGroup query_key, value;

    ops::AttentionHeads heads() const;
    at::Tensor attend(const at::Tensor& packed, std::int64_t height, ForwardState& state);
    void show(const at::Tensor& packed, std::int64_t dim, ForwardState& state) const;
  };
  /// Channels of a group among the rows of qkv, or the columns of proj.
  struct Range {
    const ChannelGroup* group;
    std::int64_t offset;
  };

  void add_branch(AnyWindows stripes, std::int64_t dim, std::int64_t heads,
                  const std::string& suffix);
  std::vector<at::Tensor> split(const at::Tensor& packed) const;
  std::vector<Range> ranges_of(std::initializer_list<ChannelGroup Branch::*> parts) const;
  std::vector<Range> rows() const;
  std::vector<Range> columns() const { return ranges_of({&Branch::value}); }
  static std::vector<std::int64_t> left_of(const std::vector<Range>& ranges,
                                           const ChannelGroup& group,
                                           const std::vector<std::int64_t>& kept);

  std::vector<Branch> branches_;
};

}  // namespace ablate
