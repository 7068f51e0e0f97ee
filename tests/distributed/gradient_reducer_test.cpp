#include "distributed/gradient_reducer.h"

#include <gtest/gtest.h>

#include "distributed/host_communicator.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"
#include "tests/distributed/own_linear.h"
#include "tests/support/run_ranks.h"

namespace ablate::test {
namespace {

/// One of two ranks that hold the same: sums double. Remembers the sizes of started reductions.
class TwinCommunicator final : public HostCommunicator {
 public:
  using HostCommunicator::all_gather;
  using HostCommunicator::broadcast;

  class Done final : public Work {
    void wait() override {}
  };

  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string backend() const override { return "twin"; }
  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp) override {
    started.push_back(tensor.numel());
    tensor.mul_(2);
    return std::make_unique<Done>();
  }
  void broadcast(at::Tensor&, int) override {}
  void all_gather(const at::Tensor& tensor, at::Tensor& all) override {
    for (int r = 0; r < 2; ++r) all[r].copy_(tensor);
  }
  std::unique_ptr<Communicator> split(int, int) override { return make_self_communicator(); }

  std::vector<std::int64_t> started;
};

/// y = w3 tanh(w2 tanh(w1 x)) with a fourth weight that no loss uses; fp64. The buffer holds the
/// weights in reverse order of execution.
struct Network {
  Network() {
    std::int64_t offset = 0;
    for (int layer = kLayers - 1; layer >= 0; --layer) {
      at::Tensor weight = at::sin(at::arange(kWidth * kWidth, at::kDouble) * (layer + 1) + 1.0)
                              .view({kWidth, kWidth})
                              .div_(kWidth);
      weights.insert(weights.begin(), weight);
      segments.push_back({cat("w", layer + 1), offset, weight.numel()});
      parameters.push_back(weight);
      offset += weight.numel();
    }
    gradients = at::zeros({offset}, at::kDouble);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].requires_grad_(true);
      parameters[i].mutable_grad() =
          gradients.narrow(0, segments[i].offset, segments[i].numel).view({kWidth, kWidth});
    }
  }

  at::Tensor loss(std::int64_t first, std::int64_t count) const {
    at::Tensor x = at::cos(at::arange(first * kWidth, (first + count) * kWidth, at::kDouble));
    x = x.view({count, kWidth});
    x = at::tanh(at::linear(x, weights[0]));
    x = at::tanh(at::linear(x, weights[1]));
    return at::linear(x, weights[2]).square().sum(1).mean();
  }

  static constexpr std::int64_t kWidth = 8;
  static constexpr int kLayers = 4;
  std::vector<at::Tensor> weights;
  std::vector<GradientSegment> segments;  // w4 (unused), w3, w2, w1
  std::vector<at::Tensor> parameters;     // same order
  at::Tensor gradients;
};

constexpr ReducerOptions kOneSegmentEach{.bucket_bytes = 1, .first_bucket_bytes = 1};

TEST(PlanBuckets, FirstIsSmallAndAllIsCoveredInOrder) {
  std::vector<GradientSegment> segments;
  for (int i = 0; i < 10; ++i) segments.push_back({cat("p", i), i * 64, 50});
  const auto buckets =
      plan_buckets(segments, 4, {.bucket_bytes = 4 * 200, .first_bucket_bytes = 4 * 100});
  std::vector<std::vector<std::size_t>> members;
  for (const auto& bucket : buckets) members.push_back(bucket.segments);
  EXPECT_EQ(members, (std::vector<std::vector<std::size_t>>{{0, 1}, {2, 3, 4, 5}, {6, 7, 8, 9}}));
  EXPECT_EQ(buckets[1].offset, 2 * 64);
  EXPECT_EQ(buckets[1].numel, 3 * 64 + 50);
}

TEST(PlanBuckets, WhatIsCompleteLastIsASliceOfItsOwn) {
  std::vector<GradientSegment> segments;
  for (int i = 0; i < 10; ++i) segments.push_back({cat("p", i), i * 64, 50});
  const auto members = [&](std::int64_t last_numel) {
    std::vector<std::vector<std::size_t>> found;
    for (const auto& bucket : plan_buckets(segments, 4,
                                           {.bucket_bytes = 1 << 20,
                                           .first_bucket_bytes = 4 * 100,
                                           .last_bucket_bytes = 4 * last_numel})) {
      EXPECT_EQ(bucket.offset, segments[bucket.segments.front()].offset);
      EXPECT_EQ(bucket.offset + bucket.numel, segments[bucket.segments.back()].offset + 50);
      found.push_back(bucket.segments);
    }
    return found;
  };
  using Slices = std::vector<std::vector<std::size_t>>;
  EXPECT_EQ(members(64 + 50), (Slices{{0, 1}, {2, 3, 4, 5, 6, 7}, {8, 9}}));
  EXPECT_EQ(members(64 + 49), (Slices{{0, 1}, {2, 3, 4, 5, 6, 7, 8}, {9}}));
  EXPECT_EQ(members(1), (Slices{{0, 1}, {2, 3, 4, 5, 6, 7, 8}, {9}})) << "no less than a segment";
  EXPECT_EQ(members(1000), (Slices{{0, 1}, {2, 3, 4, 5, 6, 7, 8, 9}}));
}

TEST(PlanBuckets, InactiveSegmentsAreInNoSlice) {
  const auto buckets = plan_buckets(
      {{"a", 0, 10}, {"b", 64, 10, false}, {"c", 128, 10}, {"d", 192, 10}, {"e", 256, 4, false}}, 8,
      {});
  ASSERT_EQ(buckets.size(), 2U);
  EXPECT_EQ(buckets[0].numel, 10);
  EXPECT_EQ(buckets[1].offset, 128);
  EXPECT_EQ(buckets[1].numel, 64 + 10);
}

class GradientReducerRanks : public ::testing::TestWithParam<int> {};

TEST_P(GradientReducerRanks, TheMeanOverRanksIsTheGradientOfTheWholeBatch) {
  const int size = GetParam();
  const std::int64_t batch = 24;
  Network whole;
  whole.loss(0, batch).backward();
  run_ranks(size, [&](Communicator& comm) {
    Network mine;
    GradientReducer reducer(comm, mine.gradients, mine.segments, mine.parameters, kOneSegmentEach);
    const std::int64_t share = batch / size;
    for (int step = 0; step < 2; ++step) {
      mine.gradients.zero_();
      // Two micro-batches, of which only the second is reduced.
      (mine.loss(comm.rank() * share, share / 2) / 2).backward();
      reducer.arm();
      (mine.loss(comm.rank() * share + share / 2, share / 2) / 2).backward();
      reducer.finish();
      const auto error = (mine.gradients - whole.gradients).norm() / whole.gradients.norm();
      EXPECT_LT(error.item<double>(), 1e-14) << "step " << step;
    }
    at::Tensor all = at::empty({size, mine.gradients.numel()}, at::kDouble);
    comm.all_gather(mine.gradients, all);
    for (int r = 0; r < size; ++r) EXPECT_TRUE(at::equal(all[r], mine.gradients)) << r;
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, GradientReducerRanks, ::testing::Values(1, 2, 4));

TEST(GradientReducer, BucketsStartInOrderWhileBackwardRuns) {
  TwinCommunicator comm;
  Network net;
  net.segments.erase(net.segments.begin());  // without the unused w4
  net.parameters.erase(net.parameters.begin());
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters,
                          {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1});
  ASSERT_EQ(reducer.buckets().size(), 2U);  // w3, then w2 with w1
  net.loss(0, 4).backward();
  EXPECT_TRUE(comm.started.empty()) << "reduced before the last micro-batch";
  net.gradients.zero_();
  std::size_t started_before_w1 = 99;
  net.weights[0].register_hook([&](const at::Tensor&) { started_before_w1 = comm.started.size(); });
  reducer.arm();
  net.loss(0, 4).backward();
  EXPECT_EQ(started_before_w1, 1U) << "w3's bucket waits for the end of backward";
  EXPECT_EQ(comm.started, (std::vector<std::int64_t>{64, 128}));
  reducer.finish();
  Network plain;
  plain.loss(0, 4).backward();
  EXPECT_TRUE(at::equal(net.gradients, plain.gradients));  // (g + g) / 2
}

TEST(GradientReducer, AnUnusedParameterHoldsUpItsBucketUntilTheEndOnly) {
  TwinCommunicator comm;
  Network net;
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters, kOneSegmentEach);
  reducer.arm();
  net.loss(0, 4).backward();
  EXPECT_TRUE(comm.started.empty()) << "w4's bucket is first and not ready";
  reducer.finish();
  EXPECT_EQ(comm.started.size(), 4U);
  EXPECT_EQ(net.gradients.narrow(0, 0, 64).abs().max().item<double>(), 0.0);
}

// A parameter counts when both of its uses are through, though autograd gets nothing for it.
TEST(GradientReducer, GradientsThatFunctionsWriteThemselvesStartTheirBuckets) {
  TwinCommunicator comm;
  Network net, plain;
  const auto loss = [](Network& network, bool own) {
    at::Tensor x = at::cos(at::arange(4 * Network::kWidth, at::kDouble)).view({4, -1});
    const at::Tensor& w4 = network.weights[3];
    for (int use = 0; use < 2; ++use) {
      x = own ? OwnLinear::apply(x, w4, w4.grad()) : at::linear(x, w4);
      x = at::linear(at::tanh(x), network.weights[static_cast<std::size_t>(use)]);
    }
    return at::linear(x, network.weights[2]).square().sum(1).mean();
  };
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters,
                          {.bucket_bytes = 1, .first_bucket_bytes = 1, .average = false});
  std::size_t started_before_w1 = 99;
  net.weights[0].register_hook([&](const at::Tensor&) { started_before_w1 = comm.started.size(); });
  reducer.arm();
  loss(net, true).backward();
  EXPECT_EQ(started_before_w1, 0U) << "w4 is used before w1, too";
  EXPECT_EQ(comm.started.size(), 4U) << "w4 is there, so nobody waits for finish()";
  reducer.finish();
  loss(plain, false).backward();
  EXPECT_TRUE(at::allclose(net.gradients, 2 * plain.gradients, 1e-12, 1e-15));
}

TEST(GradientReducer, TheSumIsLeftToCallersThatScaleThemselves) {
  TwinCommunicator comm;
  Network net, plain;
  ReducerOptions options = kOneSegmentEach;
  options.average = false;
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters, options);
  reducer.arm();
  net.loss(0, 4).backward();
  reducer.finish();
  plain.loss(0, 4).backward();
  EXPECT_TRUE(at::equal(net.gradients * reducer.remaining_factor(), plain.gradients));
  EXPECT_EQ(reducer.remaining_factor(), 0.5);
}

TEST(GradientReducer, InBfloat16OnlyTheWireIsRounded) {
  TwinCommunicator comm;
  Network net, plain;
  ReducerOptions options = kOneSegmentEach;
  options.wire = Wire::Bfloat16;
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters, options);
  reducer.arm();
  net.loss(0, 4).backward();
  reducer.finish();
  plain.loss(0, 4).backward();
  EXPECT_TRUE(at::equal(net.gradients, plain.gradients.to(at::kBFloat16).to(at::kDouble)));
  EXPECT_FALSE(at::equal(net.gradients, plain.gradients));
}

TEST(GradientReducer, AHostCommunicatorRefusesABfloat16Wire) {
  run_ranks(2, [](Communicator& comm) {
    Network net;
    GradientReducer reducer(comm, net.gradients, net.segments, net.parameters,
                            {.wire = Wire::Bfloat16});
    reducer.arm();
    EXPECT_THROW(reducer.finish(), BugError);
  });
}

TEST(GradientReducer, DestructionRemovesItsHooks) {
  TwinCommunicator comm;
  Network net;
  {
    GradientReducer reducer(comm, net.gradients, net.segments, net.parameters);
    reducer.arm();
  }
  net.loss(0, 4).backward();
  EXPECT_TRUE(comm.started.empty());
}

TEST(GradientReducer, MisuseIsABug) {
  TwinCommunicator comm;
  Network net;
  GradientReducer reducer(comm, net.gradients, net.segments, net.parameters);
  EXPECT_THROW(reducer.finish(), BugError);
  reducer.arm();
  EXPECT_THROW(reducer.arm(), BugError);
  net.parameters[1].mutable_grad() = at::zeros_like(net.parameters[1]);
  EXPECT_THROW(net.loss(0, 4).backward(), BugError) << "w3's gradient is elsewhere";
}

TEST(GradientReducer, RanksWithDifferentModelsAreNamed) {
  try {
    run_ranks(2, [](Communicator& comm) {
      Network net;
      if (comm.rank() == 1) net.segments[2].name = "v2";
      GradientReducer reducer(comm, net.gradients, net.segments, net.parameters, kOneSegmentEach);
    });
    FAIL() << "accepted";
  } catch (const BugError& error) {
    EXPECT_NE(std::string(error.what()).find("gradient bucket 2 of rank 1"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ablate::test
